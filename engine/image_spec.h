// Images as the control plane knows them, and the work on their files. Plain values: one owner, one
// thread at a time.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/units.h"

namespace gabion::engine {

enum class ImageFormat { kRaw };

// An image file. `name` appears in messages and as `determined_by`.
struct ImageSpec {
  std::string name;  // images/{image}
  std::string uid;   // identity of this incarnation, stored with the file where the file system can
  std::string pool;  // pools/{pool}
  std::string file_name;  // relative to the pool's directory
  ImageFormat format = ImageFormat::kRaw;
  uint32_t request_alignment_bytes = 0;  // power of two up to 65,536; 0: what the storage needs
};

// Which file it is, while it exists.
struct FileId {
  uint64_t device = 0;
  uint64_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};

struct ImageInfo {
  ByteCount virtual_size;
  ByteCount allocated;  // on disk
  FileId file = {};     // told by StatImage() and StatImages()
};

// What is done, before the image is used, about the parts of its file that hold no data.
enum class Preallocation {
  kOff,     // nothing: they are holes
  kFalloc,  // space is reserved; where the file system cannot, as kFull
  kFull,    // zeros are written
};

// How an image's file is made: new, or from a file of the same pool.
struct ImageBuild {
  ImageSpec spec;
  ByteCount size;                                     // of a new image
  Preallocation preallocation = Preallocation::kOff;  // kOff with `move`
  std::string source_file;                            // relative to the pool; empty: a new image
  bool move = false;  // the source becomes the image's file; false: a copy that keeps holes
};

// `done` of `total` bytes of the disk, holes included, are as they will be.
struct BuildProgress {
  ByteCount done;
  ByteCount total;
  bool complete = false;  // the file has its name
  ImageInfo info;         // when complete
};

// Bytes on disk: what there was when the call began, and what it has given back. What is left,
// `total - done`, is the next call's total.
struct RemovalProgress {
  ByteCount done;
  ByteCount total;
  bool complete = false;  // nothing is left
};

}  // namespace gabion::engine
