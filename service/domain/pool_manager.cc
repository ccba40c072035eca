#include "service/domain/pool_manager.h"

#include <utility>

#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/domain/list_query.h"
#include "service/domain/memory_page.h"
#include "service/errors.h"

namespace gabion::service {

absl::Status PoolManager::Open(const std::vector<PoolConfig>& pools) {
  for (const PoolConfig& pool : pools) {
    RETURN_IF_ERROR(Annotate(engine_.AddPool(pool.name, pool.directory), pool.name));
    directories_[pool.name] = pool.directory;
  }
  return absl::OkStatus();
}

absl::Status PoolManager::CheckExists(const std::string& name, std::string_view field) const {
  if (directories_.contains(name)) return absl::OkStatus();
  return NotFound("gabion/Pool", name, field);
}

v1::Pool PoolManager::Describe(const std::string& name) const {
  v1::Pool pool;
  pool.set_name(name);
  const auto info = Await<absl::StatusOr<engine::PoolInfo>>(
      [&](auto done) { engine_.GetPool(name, std::move(done)); });
  if (!info.ok()) {
    EngineCall call;
    call.pool = name;
    pool.set_state(v1::Pool::STATE_UNAVAILABLE);
    *pool.mutable_state_error() = ToRpcStatus(FromEngine(info.status(), call));
    return pool;
  }
  pool.set_state(v1::Pool::STATE_ACTIVE);
  pool.set_size_bytes(info->size.value);
  pool.set_free_bytes(info->available.value);
  pool.mutable_capabilities()->set_direct_io(info->direct_io);
  pool.mutable_capabilities()->set_punch_hole(info->punch_holes);
  return pool;
}

absl::StatusOr<v1::Pool> PoolManager::Get(const std::string& name) const {
  RETURN_IF_ERROR(CheckExists(name, {}));
  return Describe(name);
}

absl::StatusOr<v1::ListPoolsResponse> PoolManager::List(const v1::ListPoolsRequest& request) const {
  ASSIGN_OR_RETURN(const ListQuery query,
                   ListQuery::Parse(request, v1::Pool::descriptor(), tokens_));
  v1::ListPoolsResponse response;
  ASSIGN_OR_RETURN(const uint64_t revision, store_.Revision());
  response.set_revision(revision);
  std::vector<v1::Pool> pools;
  for (const auto& [name, directory] : directories_) pools.push_back(Describe(name));
  MemoryPage<v1::Pool> page = PageOf(
      std::move(pools), query, [](const auto& a, const auto& b) { return a.name() < b.name(); });
  for (v1::Pool& pool : page.resources) *response.add_pools() = std::move(pool);
  response.set_next_page_token(std::move(page.next_page_token));
  return response;
}

std::vector<std::string> PoolManager::names() const {
  std::vector<std::string> names;
  for (const auto& [name, directory] : directories_) names.push_back(name);
  return names;
}

}  // namespace gabion::service
