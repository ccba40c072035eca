// The part of ImageManager that runs when the daemon starts, and in the background afterwards.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/identity.h"
#include "service/domain/image_file.h"
#include "service/domain/image_manager.h"
#include "service/domain/image_view.h"

namespace gabion::service {

absl::Status ImageManager::Recover() {
  RETURN_IF_ERROR(records_.ForEach([&](const StoredImage& stored) {
    const v1::Image& image = stored.resource;
    if (!image.backing_image().empty()) context_.chains.Add(image.name(), image.backing_image());
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(records_.ForEach([&](const StoredImage& stored) { return RecoverOne(stored); }));
  return Sweep();
}

absl::Status ImageManager::RecoverOne(const StoredImage& stored) {
  const v1::Image& image = stored.resource;
  if (image.observed_generation() == image.generation()) return absl::OkStatus();
  return SettleGrowth(image.name());
}

absl::Status ImageManager::SettleGrowth(const std::string& name) {
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> intent, context_.intents.Find(name));
  if (!intent.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::optional<StoredImage> stored, records_.Find(name));
  const std::string& uid = intent->grow_image().uid();
  if (stored.has_value() && stored->resource.uid() == uid) return RecoverGrowth(*stored, *intent);
  // That image is no more.
  std::vector<Mutation> steps = {Intents::Removing(name)};
  RETURN_IF_ERROR(context_.requests.Forget(intent->request(), &steps));
  return context_.store.Commit(steps).status();
}

// Nobody was told yet how the growth ended: it is finished if that is possible, and else taken
// back.
absl::Status ImageManager::RecoverGrowth(const StoredImage& stored,
                                         const store::v1::Intent& intent) {
  v1::Image image = stored.resource;
  ASSIGN_OR_RETURN(const engine::ImageSpec spec, ChainSpec(records_, image));
  const auto grown = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
    context_.engine.GrowImage(spec, ByteCount{image.virtual_size_bytes()}, std::move(done));
  });
  context_.logger.Log(
      LogLevel::kWarning, "images",
      absl::StrCat("The growth of ", image.name(), " was cut off and is ",
                   grown.ok() ? "finished now." : "undone: " + grown.status().ToString()));
  std::vector<Mutation> steps = {Intents::Removing(image.name())};
  if (grown.ok()) {
    image.set_observed_generation(image.generation());
    for (const std::string& exported : context_.index.ExportsOf(image.name())) {
      steps.push_back(Touch(kExports, exported));  // it has another size for new clients
    }
    const v1::Image told =
        TellImage(image, grown, {context_.index, context_.chains}, context_.conditions);
    RETURN_IF_ERROR(context_.requests.Answer(intent.request(), told, &steps));
  } else {
    // Only what the growth has changed: the rest may have changed since.
    image.set_virtual_size_bytes(intent.grow_image().virtual_size_bytes());
    image.set_generation(intent.grow_image().generation());
    *image.mutable_update_time() = intent.grow_image().update_time();
    RETURN_IF_ERROR(context_.requests.Forget(intent.request(), &steps));
  }
  steps.push_back(records_.Saving(image, stored.revision));
  return context_.store.Commit(steps).status();
}

// Files that were being made or removed for images that are not there any more.
absl::Status ImageManager::Sweep() {
  std::map<std::string, std::vector<std::string>> uids;  // by pool
  for (const std::string& pool : pools_.names()) uids[pool] = {};
  RETURN_IF_ERROR(records_.ForEach([&](const StoredImage& stored) {
    uids[stored.resource.pool()].push_back(stored.resource.uid());
    return absl::OkStatus();
  }));
  for (auto& [pool, keep] : uids) {
    const auto swept = Await<absl::StatusOr<std::vector<std::string>>>(
        [&](auto done) { context_.engine.SweepPool(pool, std::move(keep), std::move(done)); });
    if (!swept.ok()) {
      context_.logger.Log(LogLevel::kError, "images",
                          absl::StrCat(pool, " could not be swept: ", swept.status().ToString()));
    } else if (!swept->empty()) {
      context_.logger.Log(LogLevel::kWarning, "images",
                          absl::StrCat("Removed from ", pool, " what belonged to no image: ",
                                       absl::StrJoin(*swept, ", ")));
    }
  }
  return absl::OkStatus();
}

void ImageManager::PlanRemoval(const v1::Image& image) {
  if (!image.has_delete_time() || !image.operation().empty()) return;
  const int64_t wait = image.purge_time().seconds() - Now().seconds();
  reconciler_.Add(image.name(), std::chrono::seconds(std::max<int64_t>(wait, 0)));
}

absl::Status ImageManager::PlanRemovals() {
  plans_removals_ = true;
  return records_.ForEach([&](const StoredImage& stored) {
    PlanRemoval(stored.resource);
    return absl::OkStatus();
  });
}

void ImageManager::Released(const std::string& name) {
  if (!plans_removals_) return;  // others that use it may not be known yet
  const absl::StatusOr<StoredImage> stored = records_.Get(name);
  if (stored.ok()) PlanRemoval(stored->resource);
}

Reconciler::Outcome ImageManager::Reconcile(const std::string& name) {
  using Outcome = Reconciler::Outcome;
  {
    const ResourceLocks::Guard lock = context_.locks.Lock({name});
    if (!SettleGrowth(name).ok()) return Outcome::kRetry;
  }
  return PurgeIfDue(name);
}

// Removes a tombstone whose time has come and that nothing uses. What still uses it will call
// Released().
Reconciler::Outcome ImageManager::PurgeIfDue(const std::string& name) {
  using Outcome = Reconciler::Outcome;
  std::string operation;
  {
    const ResourceLocks::Guard lock = context_.locks.Lock({name});
    const absl::StatusOr<StoredImage> stored = records_.Get(name);
    if (!stored.ok()) return absl::IsNotFound(stored.status()) ? Outcome::kDone : Outcome::kRetry;
    const v1::Image& image = stored->resource;
    if (!image.has_delete_time() || !image.operation().empty()) return Outcome::kDone;
    const google::protobuf::Timestamp now = Now();
    const auto due = std::pair(image.purge_time().seconds(), image.purge_time().nanos());
    if (due > std::pair(now.seconds(), now.nanos())) {
      reconciler_.Add(name, std::chrono::seconds(due.first - now.seconds() + 1));
      return Outcome::kDone;
    }
    if (!CheckUnused(image).ok() || context_.chains.HasImagesOn(name)) return Outcome::kDone;
    const absl::Status removable = Await<absl::Status>(
        [&](auto done) { context_.engine.CheckRemoval(SpecOf(image), std::move(done)); });
    if (!removable.ok()) return Outcome::kRetry;  // somebody looks into it, say
    const absl::StatusOr<std::string> purged = Purge(*stored, Call());
    if (!purged.ok()) return Outcome::kRetry;
    operation = *purged;
  }
  const auto started = context_.operations.Start(operation);
  if (!started.ok()) {
    context_.logger.Log(LogLevel::kError, "images",
                        absl::StrCat("The removal of ", name,
                                     " could not be started: ", started.status().ToString()));
    return Outcome::kDone;
  }
  return started->has_error() ? Outcome::kRetry : Outcome::kDone;
}

}  // namespace gabion::service
