#include "service/domain/domain.h"

#include <utility>

#include "engine/base/status_macros.h"

namespace gabion::service {
namespace {

// The key under which page tokens of this store are sealed; made when it is first asked for.
absl::StatusOr<std::string> TokenKey(MetadataStore& store) {
  constexpr std::string_view kCollection = "settings";
  constexpr std::string_view kName = "page-token-key";
  absl::StatusOr<Row> row = store.Get(kCollection, kName);
  if (row.ok()) return row->value;
  if (!absl::IsNotFound(row.status())) return row.status();
  std::string key = NewPageTokenKey();
  RETURN_IF_ERROR(store.Commit({Insert(kCollection, kName, key)}).status());
  return key;
}

}  // namespace

Domain::Domain(engine::Engine& engine, MetadataStore& store, Logger& logger, std::string token_key,
               DomainOptions options)
    : feed_(store),
      tokens_(std::move(token_key)),
      requests_(store, locks_),
      operations_(store, locks_, tokens_, logger, options.operations),
      intents_(store),
      context_{engine,
               store,
               locks_,
               index_,
               chains_,
               attachments_,
               tokens_,
               requests_,
               operations_,
               intents_,
               conditions_,
               logger,
               options.allow_fault_filters},
      pools_(engine, store, tokens_),
      images_(context_, pools_, options.exports.reconciler),
      exports_(context_, images_, options.exports),
      filters_(context_, exports_, options.exports.reconciler),
      connections_(engine, store, exports_, tokens_),
      inspector_(engine, store, locks_, images_, exports_),
      server_info_(engine, std::move(options.facts)),
      maintenance_(store, requests_, operations_, logger, options.maintenance),
      views_(pools_, images_, exports_, filters_, connections_,
             [this](const std::string& name) { return operations_.Get(name); }),
      observer_(engine, store, logger,
                {.changed = [this](const std::string& name) { exports_.ClientLeft(name); }}),
      image_watch_(images_, store, logger, options.image_watch) {}

void Domain::Observe() {
  engine::Observer observer;
  observer.connected = [inbox = observer_.inbox()](const std::string& export_name,
                                                   const engine::ConnectionState& state) {
    inbox->Connected(export_name, state);
  };
  observer.disconnected = [inbox = observer_.inbox()](const std::string& export_name, uint64_t id) {
    inbox->Disconnected(export_name, id);
  };
  context_.engine.SetObserver(std::move(observer));
}

void Domain::Stop() {
  image_watch_.Stop();
  observer_.Stop();
  maintenance_.Stop();
  filters_.Stop();
  exports_.Stop();
  images_.Stop();
  operations_.Stop();
}

absl::StatusOr<std::unique_ptr<Domain>> Domain::Open(engine::Engine& engine, MetadataStore& store,
                                                     Logger& logger, DomainOptions options) {
  ASSIGN_OR_RETURN(std::string key, TokenKey(store));
  const std::vector<PoolConfig> pools = options.pools;
  std::unique_ptr<Domain> domain(
      new Domain(engine, store, logger, std::move(key), std::move(options)));
  RETURN_IF_ERROR(domain->pools_.Open(pools));
  RETURN_IF_ERROR(domain->observer_.Start());
  domain->Observe();
  RETURN_IF_ERROR(domain->filters_.Load());
  RETURN_IF_ERROR(domain->exports_.Load());
  RETURN_IF_ERROR(domain->images_.Recover());
  RETURN_IF_ERROR(domain->filters_.Recover());
  RETURN_IF_ERROR(domain->exports_.Recover());
  RETURN_IF_ERROR(domain->images_.PlanRemovals());
  RETURN_IF_ERROR(domain->operations_.Recover());
  domain->image_watch_.Start();
  return domain;
}

}  // namespace gabion::service
