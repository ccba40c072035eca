// An image that is open on a shard: its file, its locks, and the disk that everything above shares.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/block/filter_node.h"
#include "engine/block/node.h"
#include "engine/engine.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/io/file_lock.h"
#include "engine/io/unique_fd.h"
#include "engine/keyed_mutex.h"
#include "engine/runtime/task.h"

namespace gabion::engine {

// Takes the locks of `mode` on an image's file; a conflict is kFailedPrecondition IMAGE_LOCKED.
absl::Status LockImage(const std::string& name, io::FileLock& lock, io::LockMode mode);

// What a user of an image does with it. "Alone": nobody else changes its content meanwhile.
enum class ImageUse : uint8_t {
  kRead,
  kReadAlone,
  kResize,  // changes the size, and no content
  kWrite,
  kWriteAlone,
};
constexpr bool NeedsWriter(ImageUse use) { return use >= ImageUse::kResize; }
constexpr bool ChangesContent(ImageUse use) { return use >= ImageUse::kWrite; }
constexpr bool IsAlone(ImageUse use) {
  return use == ImageUse::kReadAlone || use == ImageUse::kWriteAlone;
}
constexpr ImageUse UseFor(bool writing, bool alone) {
  if (writing) return alone ? ImageUse::kWriteAlone : ImageUse::kWrite;
  return alone ? ImageUse::kReadAlone : ImageUse::kRead;
}
// What allows both. REQUIRES: neither is kResize.
constexpr ImageUse BothUses(ImageUse a, ImageUse b) {
  return UseFor(ChangesContent(a) || ChangesContent(b), IsAlone(a) || IsAlone(b));
}

// The top of an image's own nodes: byte-addressable, and the one place where the image grows.
// Growth is serialized, is never undone by a smaller one that came at the same time, and may run
// beside reads and writes, which raw files allow.
class ImageRoot final : public block::FilterNode {
 public:
  class Observer {
   public:
    virtual void OnGrown() = 0;

   protected:
    ~Observer() = default;
  };

  ImageRoot(block::Node& child, runtime::ReadyQueue& ready);

  void SetObserver(Observer* observer) { observer_ = observer; }

 private:
  Task<absl::Status> DoResize(ByteCount size) override;

  KeyedMutex growing_;
  Observer* observer_ = nullptr;
};

// Owned by its shard's server; used on the shard. Close() comes before destruction.
class Image final : private ImageRoot::Observer {
 public:
  // What of the node tree the image is made of, from the bottom. The reader's locks have been
  // taken.
  struct Parts {
    std::unique_ptr<block::Node> format;
    qcow2::Qcow2Node* qcow2 = nullptr;     // `format`, if it is one
    std::unique_ptr<block::Node> aligned;  // may be null
    Image* backing = nullptr;              // that `format` stands on; a user of it
    io::UniqueFd lock_fd;  // a descriptor of the file's open description, which holds the locks
    io::FileLock lock;     // over lock_fd
    FileId file;
  };

  class GrowthObserver {
   public:
    virtual void OnImageGrown(Image& image) = 0;

   protected:
    ~GrowthObserver() = default;
  };

  Image(ImageSpec spec, Parts parts, runtime::ReadyQueue& ready, GrowthObserver& observer);
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  const ImageSpec& spec() const { return spec_; }
  // The file that was opened, whatever has its name by now.
  const FileId& file() const { return parts_.file; }
  // Alignment 1; limits().alignment_from and friends of the storage are in storage_limits().
  block::Node& root() { return root_; }
  const block::Limits& storage_limits() const { return parts_.format->limits(); }

  // Users hold the image open. The first that writes makes it take the writer's locks, and makes a
  // qcow2 image ready to be written; when the last one leaves, the file has everything. One call at
  // a time. kFailedPrecondition IMAGE_LOCKED if another process holds it, IMAGE_NOT_WRITABLE,
  // IMAGE_HAS_DEPENDENTS, FILTER_PARAMETERS_INVALID where one would have to be alone;
  // kDataLoss IMAGE_CORRUPT: it can only be read.
  Task<absl::Status> AddUser(ImageUse use);
  Task<void> RemoveUser(ImageUse use);
  // A user does something else from now on. On error it goes on as before.
  Task<absl::Status> ChangeUser(ImageUse from, ImageUse to);
  // What can be said against that without touching the file.
  absl::Status CheckUse(std::optional<ImageUse> from, ImageUse to) const;
  uint32_t users() const { return users_; }
  bool has_writers() const { return writers_ > 0; }

  // An image that stands on this one, and is one of its users: while there is any, nobody writes.
  // kFailedPrecondition IMAGE_IN_USE while somebody does.
  absl::Status AddDependent();
  void RemoveDependent() { --dependents_; }

  // The image below, which this one is a user of; null: none.
  Image* backing() const { return parts_.backing; }
  // Of a qcow2 image: what it allocates at least, in bytes. Else 0.
  uint64_t allocation_unit() const;
  // Not OK: the image has turned out to be damaged, and refuses writes.
  absl::Status health() const;

  // Makes the image at least `size` bytes large.
  Task<absl::Status> Grow(ByteCount size);
  // Makes it smaller. REQUIRES: its one user is the caller, who writes.
  Task<absl::Status> Shrink(ByteCount size);
  Task<absl::Status> Close();

 private:
  Task<absl::Status> Begin(std::optional<ImageUse> from, ImageUse to);
  Task<absl::Status> BeginWriting();
  absl::Status CheckSound() const;
  void OnGrown() override { observer_.OnImageGrown(*this); }

  const ImageSpec spec_;
  Parts parts_;
  ImageRoot root_;
  GrowthObserver& observer_;
  uint32_t users_ = 0;
  uint32_t writers_ = 0;   // who needs to be one
  uint32_t changing_ = 0;  // who changes content
  uint32_t alone_ = 0;     // who wants nobody else to
  uint32_t dependents_ = 0;
  bool closed_ = false;
};

}  // namespace gabion::engine
