// What the simulation needs to know of an image format.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/io/file.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "tests/sim/sim_file.h"

namespace gabion::sim {

// An image of a simulation. A plain value.
struct ImageSpec {
  uint64_t size = 0;  // of the disk, in bytes; a multiple of nothing
  // The size of the image below, if there is one, and where that holds data; the rest of it, and
  // what lies past its end, reads as zeros.
  std::optional<uint64_t> backing_size;
  std::vector<ByteRange> base;
  // What is read and written most; the whole disk, unless that is large.
  std::vector<ByteRange> windows;
  // The format may give it space before anything is written.
  bool may_preallocate = true;
  // A random number from which a format takes its own choices, such as the size of clusters: the
  // same for all calls about one image.
  uint64_t variant = 0;
};

// The nodes of an open image, from the bottom up; only the top one is used. Owned by a simulation.
class OpenImage {
 public:
  OpenImage() = default;
  OpenImage(OpenImage&&) = default;
  OpenImage& operator=(OpenImage&&) = delete;
  ~OpenImage() { Clear(); }

  // Puts `node` on top. It borrows what is below it.
  void Add(std::unique_ptr<block::Node> node) { nodes_.push_back(std::move(node)); }
  block::Node& top() { return *nodes_.back(); }

  // Closes all, from the top; the first error. Runs alone, last.
  Task<absl::Status> Close() {
    absl::Status first = absl::OkStatus();
    for (auto it = nodes_.rbegin(); it != nodes_.rend(); ++it) {
      const absl::Status status = co_await (*it)->Close();
      first.Update(status);
    }
    co_return first;
  }

 private:
  void Clear() {
    while (!nodes_.empty()) nodes_.pop_back();
  }

  std::vector<std::unique_ptr<block::Node>> nodes_;
};

// Implemented once per format, without state. All calls may fail when the power does. Arguments by
// reference outlive the task. To add a format: implement this, and name it in AllFormats().
class SimFormat {
 public:
  virtual ~SimFormat() = default;

  virtual std::string_view name() const = 0;
  virtual bool can_have_backing() const = 0;
  // How the files of an image are opened.
  virtual SimFileOptions FileOptions(const ImageSpec& spec) const = 0;

  // Makes an image in the empty file, which this owns and closes; durable when it is done.
  virtual Task<absl::Status> Create(std::unique_ptr<io::File> file,
                                    const ImageSpec& spec) const = 0;

  // Opens the image. The top node takes any alignment. `backing` is there if the spec says so, and
  // outlives the image.
  virtual Task<absl::StatusOr<OpenImage>> Open(std::unique_ptr<io::File> file, block::Node* backing,
                                               const ImageSpec& spec,
                                               runtime::ReadyQueue& ready) const = 0;

  // Checks the file, which nobody has open, without changing it; owns and closes it. After a crash
  // leaks are no error.
  virtual Task<absl::Status> Check(std::unique_ptr<io::File> file, const ImageSpec& spec,
                                   bool leaks_allowed) const = 0;
};

}  // namespace gabion::sim
