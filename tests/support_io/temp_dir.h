// A directory of a test's own, removed with everything in it when the test ends.
#pragma once

#include <string>
#include <string_view>

namespace gabion::test {

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const;

 private:
  std::string path_;
};

}  // namespace gabion::test
