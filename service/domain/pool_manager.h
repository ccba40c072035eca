// Pools: the directories that the configuration names.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/pool.pb.h"
#include "service/domain/page_token.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// A pool as the configuration declares it.
struct PoolConfig {
  std::string name;       // pools/{pool}
  std::string directory;  // exists
};

// Owned by the domain; any thread of the executor, which blocks.
class PoolManager {
 public:
  // All of them outlive this.
  PoolManager(engine::Engine& engine, MetadataStore& store, const PageTokens& tokens)
      : engine_(engine), store_(store), tokens_(tokens) {}

  // Opens the pools in the engine. Call once, before anything else.
  absl::Status Open(const std::vector<PoolConfig>& pools);

  absl::StatusOr<v1::Pool> Get(const std::string& name) const;
  absl::StatusOr<v1::ListPoolsResponse> List(const v1::ListPoolsRequest& request) const;

  // In their order.
  std::vector<std::string> names() const;

  // RESOURCE_NOT_FOUND with `field` unless there is such a pool.
  absl::Status CheckExists(const std::string& name, std::string_view field) const;

 private:
  v1::Pool Describe(const std::string& name) const;

  engine::Engine& engine_;
  MetadataStore& store_;
  const PageTokens& tokens_;
  std::map<std::string, std::string> directories_;  // by name
};

}  // namespace gabion::service
