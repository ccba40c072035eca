// Looking into images and exports without an NBD client.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/inspect.h"
#include "gabion/v1/inspect.pb.h"
#include "service/domain/call.h"
#include "service/domain/export_manager.h"
#include "service/domain/image_manager.h"

namespace gabion::service {

// A map as it is told, piece by piece. Holds the image open. One owner, one thread at a time; its
// calls and its end block.
class MapCursor {
 public:
  // `target`: opened; `start` and `end`: what to map, start a multiple of `granularity` and end one
  // too or the end of the disk. `max_results` 0: no limit. `image`: the name of layer 1.
  MapCursor(std::unique_ptr<engine::Target> target, ByteRange range, uint32_t granularity,
            uint32_t max_results, std::string image, std::string offset_field);
  ~MapCursor();

  // The next piece, of bounded size and after a bounded amount of work. Nothing: all has been told
  // if ended(); otherwise there is nothing to tell yet. There is at least one piece.
  absl::StatusOr<std::optional<v1::MapResponse>> Next();
  bool ended() const { return ended_; }

 private:
  absl::Status Fetch();
  void Tell(const engine::MapExtent& run, v1::MapResponse::Extent* extent) const;

  std::unique_ptr<engine::Target> target_;
  const ByteRange range_;
  const uint32_t granularity_;
  const std::string image_;
  const std::string offset_field_;
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
  Inspector(engine::Engine& engine, MetadataStore& store, ImageManager& images,
            ExportManager& exports)
      : engine_(engine), store_(store), images_(images), exports_(exports) {}

  absl::StatusOr<std::unique_ptr<MapCursor>> Map(const v1::MapRequest& request);
  absl::StatusOr<v1::ReadResponse> Read(const v1::ReadRequest& request);
  absl::StatusOr<v1::WriteResponse> Write(const v1::WriteRequest& request, const Call& call);
  absl::StatusOr<v1::VerifyResponse> Verify(const v1::VerifyRequest& request);

 private:
  struct Opened {
    std::unique_ptr<engine::Target> target;
    std::string image;  // of layer 1
  };
  absl::StatusOr<Opened> Open(const std::string& name, bool writable);

  engine::Engine& engine_;
  MetadataStore& store_;
  ImageManager& images_;
  ExportManager& exports_;
};

}  // namespace gabion::service
