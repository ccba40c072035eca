// Images as the control plane knows them, and the work on their files. Plain values: one owner, one
// thread at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/units.h"

namespace gabion::engine {

enum class ImageFormat { kRaw, kQcow2 };

// An image file. `name` appears in messages and as `determined_by`.
struct ImageSpec {
  std::string name;  // images/{image}
  std::string uid;   // identity of this incarnation, stored with the file where the file system can
  std::string pool;  // pools/{pool}
  std::string file_name;  // relative to the pool's directory
  ImageFormat format = ImageFormat::kRaw;
  // Of a raw image: power of two up to 65,536; 0: what the storage needs.
  uint32_t request_alignment_bytes = 0;
  // The images below a qcow2 image, the nearest one first; none of them has a `backing` of its own
  // here. All are in the same pool.
  std::vector<ImageSpec> backing;
  friend bool operator==(const ImageSpec&, const ImageSpec&) = default;
};

// The image right below `spec`, with all that is below it. REQUIRES: there is one.
ImageSpec BackingOf(const ImageSpec& spec);

enum class ImageCompression { kDeflate, kZstd };

// How a qcow2 file is laid out.
struct Qcow2Layout {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;   // log2 of a cluster's bytes, 9 to 21
  uint32_t refcount_order = 4;  // a refcount has 1 << order bits, 0 to 6
  bool extended_l2 = false;     // 32 subclusters; cluster_bits is at least 14
  bool lazy_refcounts = false;  // the file allows them; Gabion keeps refcounts right all the same
  ImageCompression compression = ImageCompression::kDeflate;
};

// What a qcow2 file says of itself.
struct Qcow2Info {
  Qcow2Layout layout;
  bool dirty = false;        // was not closed; refcounts are rebuilt when it is opened for writing
  bool corrupt = false;      // can be read only, until it is repaired
  std::string backing_file;  // as it is written in the file; empty if there is none
  uint32_t snapshots = 0;    // internal ones
};

// Which file it is, while it exists.
struct FileId {
  uint64_t device = 0;
  uint64_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};

struct ImageInfo {
  ByteCount virtual_size;
  ByteCount allocated;                            // on disk
  FileId file = {};                               // told by StatImage() and StatImages()
  std::optional<Qcow2Info> qcow2 = std::nullopt;  // of a qcow2 image, by the same
};

// What is done, before the image is used, about the parts of its file that hold no data.
enum class Preallocation {
  kOff,       // nothing: they are holes
  kMetadata,  // qcow2: tables refer to all clusters, which are holes
  kFalloc,    // space is reserved; where the file system cannot, as kFull
  kFull,      // zeros are written
};

// How an image's file is made: new, or from a file of the same pool. A new image with `backing`
// reads as that one; a qcow2 file that is imported must have a backing file exactly if `backing` is
// not empty, and will name the one that is there.
struct ImageBuild {
  ImageSpec spec;
  ByteCount size;                                     // of a new image
  Qcow2Layout qcow2;                                  // of a new qcow2 image
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
