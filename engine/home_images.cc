// What the control plane asks of the home shard: images. Work on one image is done in the order of
// asking; what blocks, on a worker.
#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/call_on.h"
#include "engine/home.h"
#include "engine/image_build.h"
#include "engine/image_files.h"
#include "engine/image_owner.h"
#include "engine/image_removal.h"

namespace gabion::engine {

Task<absl::StatusOr<ImageInfo>> Home::CreateImage(ImageSpec spec, ByteCount size) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(spec.name);
  absl::StatusOr<ImageInfo> info =
      co_await workers_.Run([&] { return CreateImageFile(*pool, spec, size); });
  co_return info;
}

Task<absl::StatusOr<ImageInfo>> Home::ImportImage(ImageSpec spec, std::string source_file,
                                                  bool move) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(spec.name);
  absl::StatusOr<ImageInfo> info =
      co_await workers_.Run([&] { return ImportImageFile(*pool, spec, source_file, move); });
  co_return info;
}

Task<absl::StatusOr<ImageInfo>> Home::StatImage(ImageSpec spec) {
  std::vector<ImageSpec> one = {std::move(spec)};
  std::vector<absl::StatusOr<ImageInfo>> infos = co_await StatImages(std::move(one));
  co_return infos.front();
}

// Where an image is open, what its name leads to must be what was opened.
Task<void> Home::CompareWithOpen(const std::vector<ImageSpec>& specs,
                                 std::vector<absl::StatusOr<ImageInfo>>& infos) {
  for (ShardServer* server : servers_) {
    std::vector<const ImageSpec*> asked;
    std::vector<std::size_t> at;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      if (!infos[i].ok() || &ServerOf(specs[i].name) != server) continue;
      asked.push_back(&specs[i]);
      at.push_back(i);
    }
    if (asked.empty()) continue;
    auto call = [server, &asked] { return server->OpenFiles(asked); };
    const std::vector<std::optional<ShardServer::OpenFile>> open =
        co_await CallOn(shard_, server->shard(), server->tasks(), call);
    for (std::size_t i = 0; i < at.size(); ++i) {
      absl::StatusOr<ImageInfo>& info = infos[at[i]];
      if (!open[i].has_value()) continue;
      if (open[i]->file == info->file) {
        if (!open[i]->health.ok()) info = open[i]->health;
        continue;
      }
      info = Annotate(Replaced(*asked[i], "the file is not the one that is open for it"),
                      asked[i]->name);
    }
  }
}

Task<std::vector<absl::StatusOr<ImageInfo>>> Home::StatImages(std::vector<ImageSpec> specs) {
  constexpr std::size_t kPart = 256;  // other work gets its turn between the parts
  std::vector<absl::StatusOr<ImageInfo>> infos;
  infos.reserve(specs.size());
  while (infos.size() < specs.size()) {
    const std::size_t end = std::min(infos.size() + kPart, specs.size());
    std::vector<absl::StatusOr<const io::Directory*>> pools;
    for (std::size_t i = infos.size(); i < end; ++i) pools.push_back(PoolOf(specs[i].pool));
    co_await workers_.Run([&] {
      for (const absl::StatusOr<const io::Directory*>& pool : pools) {
        const ImageSpec& spec = specs[infos.size()];
        infos.push_back(pool.ok() ? StatImageFile(**pool, spec) : pool.status());
      }
      return true;
    });
  }
  co_await CompareWithOpen(specs, infos);
  co_return infos;
}

Task<absl::Status> Home::CheckSize(std::string pool_name, ByteCount size) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(pool_name));
  absl::Status status = co_await workers_.Run([&] { return CheckFileSize(*pool, size); });
  co_return status;
}

Task<absl::StatusOr<ImageInfo>> Home::GrowImage(ImageSpec spec, ByteCount size) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(spec.name);
  ShardServer& server = ServerOf(spec.name);
  auto call = [&server, &spec, size, pool] { return server.GrowImage(spec, size, pool); };
  absl::StatusOr<ImageInfo> grown = co_await CallOn(shard_, server.shard(), server.tasks(), call);
  if (!grown.ok()) co_return grown.status();
  absl::StatusOr<ImageInfo> info =
      co_await workers_.Run([&] { return StatImageFile(*pool, spec); });
  co_return info;
}

Task<absl::StatusOr<ImageInfo>> Home::ShrinkImage(ImageSpec spec, ByteCount size) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(spec.name);
  ShardServer& server = ServerOf(spec.name);
  auto call = [&server, &spec, size, pool] { return server.ShrinkImage(spec, size, pool); };
  const absl::Status shrunk = co_await CallOn(shard_, server.shard(), server.tasks(), call);
  if (!shrunk.ok()) co_return shrunk;
  absl::StatusOr<ImageInfo> info =
      co_await workers_.Run([&] { return StatImageFile(*pool, spec); });
  co_return info;
}

// A check of another image does not wait for this one, and nothing else on this image does: locks
// keep apart what must not meet.
Task<absl::StatusOr<CheckReport>> Home::CheckImage(ImageSpec spec, ImageRepair repair,
                                                   CheckControl* control) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  ShardServer& server = ServerOf(spec.name);
  auto call = [&server, &spec, repair, control, pool] {
    return server.CheckImage(spec, repair, control, pool);
  };
  absl::StatusOr<CheckReport> report =
      co_await CallOn(shard_, server.shard(), server.tasks(), call);
  co_return report;
}

Task<absl::StatusOr<BuildProgress>> Home::BuildImage(ImageBuild build, ByteOffset from,
                                                     ByteCount budget) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(build.spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(build.spec.name);
  absl::StatusOr<BuildProgress> progress =
      co_await workers_.Run([&] { return BuildImageFile(*pool, build, from, budget); });
  co_return progress;
}

Task<absl::StatusOr<BuildProgress>> Home::CheckBuild(ImageBuild build) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(build.spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(build.spec.name);
  absl::StatusOr<BuildProgress> progress =
      co_await workers_.Run([&] { return CheckImageBuild(*pool, build); });
  co_return progress;
}

Task<absl::Status> Home::DeleteImage(ImageSpec spec) {
  constexpr ByteCount kAll{std::numeric_limits<uint64_t>::max()};
  const absl::StatusOr<RemovalProgress> removed = co_await RemoveImage(std::move(spec), kAll);
  co_return removed.status();
}

Task<absl::Status> Home::CheckUnused(const ImageSpec& spec) {
  ShardServer& server = ServerOf(spec.name);
  auto call = [&server, &spec] { return server.CheckUnused(spec); };
  const absl::Status unused = co_await CallOn(shard_, server.shard(), server.tasks(), call);
  co_return unused;
}

Task<absl::StatusOr<RemovalProgress>> Home::RemoveImage(ImageSpec spec, ByteCount budget) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(spec.name);
  CO_RETURN_IF_ERROR(co_await CheckUnused(spec));
  // Whoever opens it from here on finds no file, or one that has lost its name.
  absl::StatusOr<RemovalProgress> progress =
      co_await workers_.Run([&] { return RemoveImageFile(*pool, spec, budget); });
  co_return progress;
}

Task<absl::Status> Home::CheckRemoval(ImageSpec spec) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(spec.pool));
  const KeyedMutex::Lock turn = co_await image_turn_.Acquire(spec.name);
  CO_RETURN_IF_ERROR(co_await CheckUnused(spec));
  absl::Status status = co_await workers_.Run([&] { return CheckImageRemoval(*pool, spec); });
  co_return status;
}

Task<absl::StatusOr<std::vector<std::string>>> Home::SweepPool(std::string name,
                                                               std::vector<std::string> keep_uids) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(name));
  absl::StatusOr<std::vector<std::string>> swept =
      co_await workers_.Run([&] { return SweepWorkFiles(*pool, keep_uids); });
  if (!swept.ok()) co_return Annotate(swept.status(), name);
  co_return swept;
}

}  // namespace gabion::engine
