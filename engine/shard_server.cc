#include "engine/shard_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"

namespace gabion::engine {
namespace {

// Half of the budget is shared; the other half is enough for the own part of each connection, all
// of which may be on one shard.
uint64_t SharedBytes(uint64_t budget) { return budget - budget / 2; }
uint64_t OwnBytes(uint64_t budget, uint32_t connections) { return budget / 2 / connections; }

}  // namespace

ShardServer::ShardServer(runtime::Shard& shard, runtime::WorkerPool& pool, const Options& options,
                         ExportSink& sink, Logger& logger)
    : shard_(shard),
      options_(options),
      sink_(sink),
      logger_(logger),
      workers_(pool, shard.reactor()),
      budget_(shard.reactor().ready(), SharedBytes(options.budget_bytes),
              OwnBytes(options.budget_bytes, options.nbd.max_connections)),
      environment_{shard.reactor(), shard.buffers(), budget_, logger},
      session_limits_{.max_requests_in_flight = options.nbd.max_requests_in_flight,
                      .max_bytes_in_flight = options.nbd.max_bytes_in_flight.value},
      tasks_(shard.reactor().ready()),
      opening_(shard.reactor().ready()),
      next_version_(options.first_version) {
  qcow2_budget_.limit = options.qcow2_cache_total.value;
  if (options.secrets != nullptr) {
    key_workers_.emplace(*options.key_pool, shard.reactor());
    keys_.emplace(KeySurroundings{*options.secrets, workers_, *key_workers_});
  }
}

absl::StatusOr<std::unique_ptr<ShardServer>> ShardServer::Create(runtime::Shard& shard,
                                                                 runtime::WorkerPool& pool,
                                                                 const Options& options,
                                                                 ExportSink& sink, Logger& logger) {
  std::unique_ptr<ShardServer> server(new ShardServer(shard, pool, options, sink, logger));
  if (options.io_driver == IoDriver::kThreads) {
    server->ring_refused_ = "the configuration asks for threads";
    return server;
  }
  absl::StatusOr<std::unique_ptr<io::Ring>> ring = io::Ring::Create(shard.reactor(), {});
  if (ring.ok()) {
    server->ring_ = *std::move(ring);
  } else if (options.io_driver == IoDriver::kIoUring) {
    return absl::UnavailableError(
        absl::StrCat("io_uring is required by the configuration, but the host refuses it: ",
                     ring.status().message()));
  } else {
    server->ring_refused_ = std::string(ring.status().message());
  }
  return server;
}

ShardServer::~ShardServer() {
  CHECK(images_.empty());
  CHECK(exports_.empty());
}

void ShardServer::Hurry() {
  for (const auto& [name, served] : exports_) served->stack->Hurry();
}

Task<absl::Status> ShardServer::Close() {
  absl::Status status;
  // All at once: clients that do not take their replies cost one timeout, not one for each export.
  for (const auto& [name, served] : exports_) served->exported.BeginClose();
  Hurry();
  while (!exports_.empty()) {
    std::string name = exports_.begin()->first;
    const absl::Status deleted = co_await DeleteExport(std::move(name), DeleteMode::kHard);
    status.Update(deleted);
  }
  co_await tasks_.Drain();
  if (ring_ != nullptr) co_await ring_->Close();
  co_return status;
}

}  // namespace gabion::engine
