// Looking into images and exports without an NBD client.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/inspect.h"
#include "gabion/v1/inspect.pb.h"
#include "service/domain/call.h"
#include "service/domain/export_manager.h"
#include "service/domain/image_manager.h"

namespace gabion::service {

// An image or export that is looked into: while `target` is there, it is in use.
struct Inspected {
  std::unique_ptr<engine::Target> target;
  std::string uid;                  // of the resource
  std::vector<std::string> images;  // of the layers, from the top
};

// What a map is of.
struct MapPlan {
  // Opens it, each time anew.
  std::function<absl::StatusOr<Inspected>()> open;
  // The start is a multiple of `granularity`; the end is one, too, or the end of the disk.
  ByteRange range;
  uint32_t granularity = 0;
  uint32_t max_results = 0;  // 0: no limit
};

// A map as it is told, piece by piece. Between pieces nothing is open, so that a client that is
// slow to take them stands in nobody's way; what is opened must be the same resource as before. One
// owner, one thread at a time; its calls block.
class MapCursor {
 public:
  // `opened`: for the first piece, by `plan.open`.
  MapCursor(MapPlan plan, Inspected opened);
  ~MapCursor();

  // The next piece, of bounded size and after a bounded amount of work. Nothing: all has been told
  // if ended(); otherwise there is nothing to tell yet. There is at least one piece. ABORTED
  // CONCURRENT_UPDATE if the resource is another one by now, or smaller.
  absl::StatusOr<std::optional<v1::MapResponse>> Next();
  bool ended() const { return ended_; }

 private:
  absl::Status Open();
  absl::StatusOr<std::optional<v1::MapResponse>> NextOpened();
  absl::Status Fetch();
  void Tell(const engine::MapExtent& run, v1::MapResponse::Extent* extent) const;

  const MapPlan plan_;
  std::unique_ptr<engine::Target> target_;  // null between pieces
  const std::string uid_;
  const std::vector<std::string> images_;
  const ByteCount size_;
  uint64_t results_left_;
  ByteOffset at_;
  engine::MapMerger merger_;
  bool fetched_all_ = false;
  bool told_something_ = false;
  bool ended_ = false;
};

// What InspectService does. Owned by the domain; any thread of the executor, which blocks.
class Inspector {
 public:
  // All of them outlive this.
  Inspector(engine::Engine& engine, MetadataStore& store, ResourceLocks& locks,
            ImageManager& images, ExportManager& exports)
      : engine_(engine), store_(store), locks_(locks), images_(images), exports_(exports) {}

  absl::StatusOr<std::unique_ptr<MapCursor>> Map(const v1::MapRequest& request);
  absl::StatusOr<v1::ReadResponse> Read(const v1::ReadRequest& request);
  absl::StatusOr<v1::WriteResponse> Write(const v1::WriteRequest& request, const Call& call);
  absl::StatusOr<v1::VerifyResponse> Verify(const v1::VerifyRequest& request);
  absl::StatusOr<v1::GetFilterStatisticsResponse> FilterStatistics(
      const v1::GetFilterStatisticsRequest& request) const;

 private:
  absl::StatusOr<Inspected> Open(const std::string& name, bool writable);
  // What stands there: the entry's filter and its kind.
  absl::Status TellEntry(const v1::FilterStackEntry& entry, v1::FilterStatistics* told) const;
  // For a write, which nobody begins to stand on meanwhile.
  absl::StatusOr<ResourceLocks::Guard> Lock(const std::string& name, const Call& call);

  engine::Engine& engine_;
  MetadataStore& store_;
  ResourceLocks& locks_;
  ImageManager& images_;
  ExportManager& exports_;
};

}  // namespace gabion::service
