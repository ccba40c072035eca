// Which images stand on which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace gabion::service {

// The backing image of each image that has one, in memory. An image is here from before its row is
// written until after its row is gone. It comes and goes under the locks of both, so that whoever
// holds the one of the backing image knows what stands on it. Owned by the domain; any thread.
class ImageChains {
 public:
  ImageChains() = default;
  ImageChains(const ImageChains&) = delete;
  ImageChains& operator=(const ImageChains&) = delete;

  void Add(const std::string& image, const std::string& backing);
  void Remove(const std::string& image);
  // From now on it is not told any more, though it is still here: called before its row goes, so
  // that who sees the row gone sees no dependent either.
  void Hide(const std::string& image);

  // In the order of their names.
  std::vector<std::string> ImagesOn(const std::string& backing) const;
  // Those that are told, at most `most`.
  std::vector<std::string> ToldOn(const std::string& backing, std::size_t most) const;
  bool HasImagesOn(const std::string& backing) const;
  // The image, its backing image, and so on.
  std::vector<std::string> ChainOf(const std::string& image) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string> backing_;       // by image
  std::map<std::string, std::set<std::string>> on_;  // by backing image
  std::set<std::string> hidden_;
};

}  // namespace gabion::service
