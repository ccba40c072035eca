// Images by QEMU, its verdicts on them, and Gabion's.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "engine/formats/qcow2/check.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/support_io/memory_file.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::qcow2::testing {

// How an image is made: options of qemu-img create, and what is done to it afterwards, line by
// line: "io COMMAND" for qemu-io, "img ARGUMENTS", where % is the file.
struct Recipe {
  std::string name;  // a GoogleTest name
  std::string options;
  std::string size;
  std::vector<std::string> steps;
  friend void PrintTo(const Recipe& recipe, std::ostream* out) { *out << recipe.name; }
};

// Over cluster sizes, refcount widths, versions, snapshots, bitmaps, compressed and extended
// entries.
const std::vector<Recipe>& Recipes();
// 1 MiB in clusters of 64 KiB: data at 0 and 64k, compressed at 128k, zeros at 192k; with
// `options`.
Recipe SmallImage(const std::string& options);

// What `qemu-img check --output=json` says.
struct QemuVerdict {
  int exit_status = -1;
  std::string output;
  uint64_t Field(const std::string& name) const;  // 0 if it is not there
  std::string Tail() const;                       // the last lines, for messages
};

// A folder for files that QEMU works on. Owned by a test.
class QemuFolder {
 public:
  // The same recipe is followed once per process.
  ImageFile Make(const Recipe& recipe);
  QemuVerdict Check(const ImageFile& image, const std::string& arguments = "");
  // The bytes of the disk and of its snapshots, as QEMU reads them; ends the process if it cannot.
  std::vector<ImageFile> Contents(const ImageFile& image,
                                  const std::vector<std::string>& snapshots);

 private:
  test::TempDir folder_;
};

// CheckImage() of a file in memory; `image` becomes what it is afterwards.
absl::StatusOr<CheckResult> Check(ImageFile& image, const CheckOptions& options = {});
// The same without repairs; ends the process if there is no verdict.
CheckResult Verdict(const ImageFile& image, const CheckOptions& options = {});

// "corruptions 1, leaks 2: KIND at ...": for messages of failing tests.
std::string Text(const CheckResult& result);

// Where things are in an image; of the active tables.
struct Places {
  explicit Places(const ImageFile& image);
  uint64_t l1 = 0;
  uint64_t l2 = 0;  // the table of the first entry of L1
  uint64_t refcount_table = 0;
  uint64_t refcount_block = 0;  // the first one
  uint64_t snapshots = 0;
  uint64_t l2_entry_bytes = 8;
  uint64_t L2Entry(uint64_t index) const { return l2 + index * l2_entry_bytes; }
};

uint64_t Get64(const ImageFile& file, std::size_t at);

}  // namespace gabion::qcow2::testing
