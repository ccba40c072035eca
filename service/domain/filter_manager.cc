#include "service/domain/filter_manager.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "service/domain/filter_stack.h"
#include "service/domain/identity.h"
#include "service/domain/image_manager.h"
#include "service/domain/list_query.h"
#include "service/domain/lister.h"
#include "service/domain/resource_diff.h"
#include "service/errors.h"
#include "service/etag.h"
#include "service/filter_registry.h"
#include "service/names.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr std::size_t kMostTold = 1000;  // names of exports
constexpr const char* kSpecField = "filter.spec";

absl::Status InUse(const std::string& name, const std::vector<std::string>& exports) {
  return Error(reason::kFilterInUse,
               absl::StrCat(name, " is attached to ", exports.size(), " export(s)."))
      .MetadataList("exports", exports)
      .Precondition(name, "Take it out of the filter_stack of the exports first.");
}

}  // namespace

FilterManager::FilterManager(const ManagerContext& context, ExportManager& exports,
                             ReconcilerOptions reconciler)
    : context_(context),
      exports_(exports),
      records_(context.store, kFilters, kFilterType),
      reconciler_(reconciler, [this](const std::string& name) { return TryAgain(name); }) {}

v1::Filter FilterManager::Tell(v1::Filter row) const {
  const FilterKind* const kind = FindFilterKind(row.spec());
  row.set_shares_state(kind != nullptr && kind->shares_state);
  std::vector<std::string> exports = context_.attachments.ToldOf(row.name());
  row.set_attachment_count(static_cast<uint32_t>(exports.size()));
  exports.resize(std::min(exports.size(), kMostTold));
  for (std::string& name : exports) row.add_exports(std::move(name));
  row.set_reconciling(row.observed_generation() != row.generation());
  row.set_etag(EtagOf(row));
  return row;
}

absl::StatusOr<v1::Filter> FilterManager::Get(const std::string& name) const {
  ASSIGN_OR_RETURN(StoredFilter stored, records_.Get(name));
  return Tell(std::move(stored.resource));
}

std::vector<absl::StatusOr<v1::Filter>> FilterManager::GetMany(
    const std::vector<std::string>& names) const {
  std::vector<absl::StatusOr<v1::Filter>> filters;
  for (absl::StatusOr<StoredFilter>& stored : records_.GetMany(names)) {
    if (stored.ok()) {
      filters.emplace_back(Tell(std::move(stored->resource)));
    } else {
      filters.emplace_back(stored.status());
    }
  }
  return filters;
}

absl::StatusOr<v1::ListFiltersResponse> FilterManager::List(
    const v1::ListFiltersRequest& request) const {
  ASSIGN_OR_RETURN(const ListQuery query,
                   ListQuery::Parse(request, v1::Filter::descriptor(), context_.tokens));
  const auto view = [&](const std::vector<Row>& rows) -> absl::StatusOr<std::vector<v1::Filter>> {
    std::vector<v1::Filter> filters;
    for (const Row& row : rows) {
      ASSIGN_OR_RETURN(StoredFilter stored, records_.Parse(row));
      filters.push_back(Tell(std::move(stored.resource)));
    }
    return filters;
  };
  ASSIGN_OR_RETURN(Listed<v1::Filter> listed,
                   ListRows<v1::Filter>(context_.store, kFilters, {}, query, view));
  v1::ListFiltersResponse response;
  for (v1::Filter& filter : listed.resources) *response.add_filters() = std::move(filter);
  response.set_next_page_token(std::move(listed.next_page_token));
  response.set_revision(listed.revision);
  return response;
}

absl::StatusOr<v1::Filter> FilterManager::Create(const v1::CreateFilterRequest& request,
                                                 const Call& call) {
  v1::Filter filter = request.filter();
  filter.set_name(MakeName(kFilters, request.filter_id()));
  filter.clear_etag();
  RETURN_IF_ERROR(CheckFilterSpec(filter.spec(), kSpecField, context_.allow_fault_filters));
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                   context_.locks.LockFor(call.patience, {filter.name()}));
  ASSIGN_OR_RETURN(const std::optional<StoredFilter> old, records_.Find(filter.name()));
  if (old.has_value()) return ExistsAlready(filter, old->resource, kFilterType, filter.name());
  filter.set_uid(NewUid());
  filter.set_generation(1);
  filter.set_observed_generation(1);
  *filter.mutable_create_time() = Now();
  *filter.mutable_update_time() = filter.create_time();
  const v1::Filter told = Tell(filter);
  if (call.validate_only) return told;
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, told, &steps);
  steps.push_back(records_.Adding(filter));
  TellImages(filter);
  const absl::Status added = context_.store.Commit(steps).status();
  if (!added.ok()) {
    const absl::StatusOr<std::optional<StoredFilter>> now = records_.Find(filter.name());
    if (now.ok() && !now->has_value()) context_.attachments.Remove(filter.name());
    return added;
  }
  context_.attachments.Settle(filter.name());
  return told;
}

// An export gets the filter under a lock of the filter: once that is held, it is known which have
// it, and once theirs are, what is around them. Locks are taken all at once, so it is tried until
// it turns out that nothing was missed.
absl::StatusOr<FilterManager::Around> FilterManager::Lock(const std::string& name,
                                                          const v1::FilterSpec& asked,
                                                          const Patience& patience) const {
  for (;;) {
    const std::vector<std::string> exports = context_.attachments.ExportsOf(name);
    std::vector<std::string> names = exports;
    names.push_back(name);
    ASSIGN_OR_RETURN(const std::set<std::string> around, exports_.AroundAll(exports));
    std::vector<std::string> shared(around.begin(), around.end());
    for (std::string& image : ImagesOf(asked)) shared.push_back(std::move(image));
    ASSIGN_OR_RETURN(ResourceLocks::Guard guard, context_.locks.LockFor(patience, names, shared));
    std::vector<std::string> now = context_.attachments.ExportsOf(name);
    if (!std::includes(exports.begin(), exports.end(), now.begin(), now.end())) continue;
    ASSIGN_OR_RETURN(const std::set<std::string> around_now, exports_.AroundAll(now));
    if (std::includes(around.begin(), around.end(), around_now.begin(), around_now.end())) {
      return Around{std::move(guard), std::move(now)};
    }
  }
}

absl::StatusOr<v1::Filter> FilterManager::Update(const v1::UpdateFilterRequest& request,
                                                 const Call& call) {
  const std::string& name = request.filter().name();
  ASSIGN_OR_RETURN(const Around around, Lock(name, request.filter().spec(), call.patience));
  RETURN_IF_ERROR(SettleChange(name, around.exports));
  ASSIGN_OR_RETURN(const StoredFilter stored, records_.Get(name));
  RETURN_IF_ERROR(CheckEtag(request.filter().etag(), Tell(stored.resource)));
  v1::Filter after = stored.resource;
  ASSIGN_OR_RETURN(const bool changed, ApplyUpdate(request, &after));
  const bool works_otherwise = !MessageDifferencer::Equals(stored.resource.spec(), after.spec());
  if (works_otherwise) {
    RETURN_IF_ERROR(CheckFilterSpec(after.spec(), kSpecField, context_.allow_fault_filters));
  }
  if (changed) {
    after.set_generation(after.generation() + 1);
    *after.mutable_update_time() = Now();
  }
  FilterChange change = ChangeAskedBy(request);
  if (works_otherwise) {
    RETURN_IF_ERROR(exports_.SettleChanges(around.exports));
    RETURN_IF_ERROR(exports_.CheckFilter(around.exports, stored.resource, after, change));
    if (!call.validate_only) {
      return Apply(stored, std::move(after), around.exports, change, call);
    }
  }
  after.set_observed_generation(after.generation());
  const v1::Filter told = Tell(after);
  if (call.validate_only) return told;
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, told, &steps);
  if (changed) steps.push_back(records_.Saving(after, stored.revision));
  if (!steps.empty()) RETURN_IF_ERROR(context_.store.Commit(steps).status());
  return told;
}

absl::StatusOr<v1::Filter> FilterManager::Apply(const StoredFilter& before, v1::Filter after,
                                                const std::vector<std::string>& exports,
                                                const FilterChange& change, const Call& call) {
  store::v1::Intent intent;
  intent.set_request(call.request);
  *intent.mutable_update_filter() = before.resource;
  std::vector<Mutation> steps = {Intents::Writing(after.name(), intent)};
  RequestLog::Begin(call, &steps);
  TellImages(after);
  Mutation save = records_.Saving(after, before.revision);
  const absl::StatusOr<StoredFilter> begun =
      records_.Commit(std::move(steps), std::move(save), std::move(after));
  if (!begun.ok()) {
    const absl::StatusOr<StoredFilter> now = records_.Get(before.resource.name());
    if (now.ok() && now->revision == before.revision) {  // it was not written for certain
      TellImages(before.resource);
      SettleImages(before.resource.name());
    }
    return begun.status();
  }
  const StoredFilter& written = *begun;
  std::vector<std::string> done;
  const absl::Status failure = exports_.ChangeFilter(exports, written.resource, change, &done);
  if (failure.ok()) {
    absl::StatusOr<v1::Filter> told =
        Settle(call.request, written.resource, written.revision, exports);
    if (told.ok()) exports_.FilterChanged(exports);
    return told;
  }
  std::vector<std::string> back;
  const absl::Status undone = exports_.ChangeFilter(done, before.resource, change, &back);
  if (!undone.ok()) {
    // The intent stays: it is tried again until all exports agree.
    reconciler_.AddFailed(written.resource.name());
    return undone;
  }
  RETURN_IF_ERROR(TakeBack(call.request, before.resource, written.revision, exports));
  return failure;
}

absl::StatusOr<v1::Filter> FilterManager::Settle(const std::string& request, v1::Filter row,
                                                 uint64_t revision,
                                                 const std::vector<std::string>& exports) {
  row.set_observed_generation(row.generation());
  const v1::Filter told = Tell(row);
  std::vector<Mutation> steps = {Intents::Removing(row.name())};
  RETURN_IF_ERROR(context_.requests.Answer(request, told, &steps));
  for (const std::string& name : exports) {
    steps.push_back(Touch(kExports, name));  // its block sizes may be others
  }
  TouchImages(row.name(), &steps);
  steps.push_back(records_.Saving(row, revision));
  RETURN_IF_ERROR(CommitOrAgain(row.name(), steps));
  SettleImages(row.name());
  return told;
}

absl::Status FilterManager::TakeBack(const std::string& request, const v1::Filter& row,
                                     uint64_t revision, const std::vector<std::string>& exports) {
  std::vector<Mutation> steps = {Intents::Removing(row.name())};
  RETURN_IF_ERROR(context_.requests.Forget(request, &steps));
  for (const std::string& name : exports) steps.push_back(Touch(kExports, name));
  TellImages(row);
  TouchImages(row.name(), &steps);
  steps.push_back(records_.Saving(row, revision));
  RETURN_IF_ERROR(CommitOrAgain(row.name(), steps));
  SettleImages(row.name());
  return absl::OkStatus();
}

void FilterManager::TellImages(const v1::Filter& filter) const {
  context_.attachments.Tell(filter.name(), ImagesOf(filter.spec()));
}

void FilterManager::TouchImages(const std::string& name, std::vector<Mutation>* steps) const {
  for (const std::string& image : context_.attachments.Changed(name)) {
    steps->push_back(Touch(kImages, image));  // it has other exports
  }
}

void FilterManager::SettleImages(const std::string& name) const {
  const std::vector<std::string> changed = context_.attachments.Changed(name);
  context_.attachments.Settle(name);
  exports_.ReleaseImages(changed);
}

// If it cannot be written now how the update ended, the intent stays, and it is tried again.
absl::Status FilterManager::CommitOrAgain(const std::string& name,
                                          const std::vector<Mutation>& steps) {
  absl::Status written = context_.store.Commit(steps).status();
  if (!written.ok()) reconciler_.AddFailed(name);
  return written;
}

absl::Status FilterManager::Delete(const v1::DeleteFilterRequest& request, const Call& call) {
  const std::string& name = request.name();
  ASSIGN_OR_RETURN(const Around around, Lock(name, v1::FilterSpec(), call.patience));
  RETURN_IF_ERROR(SettleChange(name, around.exports));
  ASSIGN_OR_RETURN(const std::optional<StoredFilter> stored, records_.Find(name));
  if (!stored.has_value() && !request.allow_missing()) return NotFound(kFilterType, name);
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, google::protobuf::Empty(), &steps);
  if (stored.has_value()) {
    RETURN_IF_ERROR(CheckEtag(request.etag(), Tell(stored->resource)));
    if (!around.exports.empty()) return InUse(name, around.exports);
    steps.push_back(records_.Erasing(*stored));
  }
  if (call.validate_only || steps.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(context_.store.Commit(steps).status());
  context_.attachments.Remove(name);
  return absl::OkStatus();
}

absl::Status FilterManager::SettleChange(const std::string& name,
                                         const std::vector<std::string>& exports) {
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> intent, context_.intents.Find(name));
  if (!intent.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const StoredFilter stored, records_.Get(name));
  return RecoverChange(stored, *intent, exports);
}

// Nobody was told yet how the update ended: it is finished if that is possible, and else taken
// back.
absl::Status FilterManager::RecoverChange(const StoredFilter& stored,
                                          const store::v1::Intent& intent,
                                          const std::vector<std::string>& exports) {
  RETURN_IF_ERROR(exports_.SettleChanges(exports));
  const v1::Filter& before = intent.update_filter();
  std::vector<std::string> done;
  const absl::Status finished = exports_.ChangeFilter(exports, stored.resource, {}, &done);
  context_.logger.Log(
      LogLevel::kWarning, "filters",
      absl::StrCat("The update of ", before.name(), " was cut off and is ",
                   finished.ok() ? "finished now." : "undone: " + finished.ToString()));
  if (finished.ok()) {
    RETURN_IF_ERROR(Settle(intent.request(), stored.resource, stored.revision, exports).status());
    exports_.FilterChanged(exports);
    return absl::OkStatus();
  }
  done.clear();
  RETURN_IF_ERROR(exports_.ChangeFilter(exports, before, {}, &done));
  return TakeBack(intent.request(), before, stored.revision, exports);
}

Reconciler::Outcome FilterManager::TryAgain(const std::string& name) {
  const absl::StatusOr<Around> around = Lock(name, v1::FilterSpec(), Patience());
  if (!around.ok()) return Reconciler::Outcome::kRetry;
  const absl::Status settled = SettleChange(name, around->exports);
  if (settled.ok()) return Reconciler::Outcome::kDone;
  context_.logger.Log(
      LogLevel::kError, "filters",
      absl::StrCat("The update of ", name, " cannot be ended: ", settled.ToString()));
  return Reconciler::Outcome::kRetry;
}

absl::Status FilterManager::Load() {
  return records_.ForEach([&](const StoredFilter& stored) -> absl::Status {
    const v1::Filter& row = stored.resource;
    ASSIGN_OR_RETURN(const auto intent, context_.intents.Find(row.name()));
    const bool changes = intent.has_value() && intent->has_update_filter();
    if (changes) TellImages(intent->update_filter());
    TellImages(row);
    if (!changes) context_.attachments.Settle(row.name());
    return absl::OkStatus();
  });
}

absl::Status FilterManager::Recover() {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, context_.intents.Names("filters/"));
  for (const std::string& name : names) RETURN_IF_ERROR(RecoverAtStart(name));
  return absl::OkStatus();
}

// The exports will be served from the rows. They were asked before the row was written; what has
// changed since may speak against it now.
absl::Status FilterManager::RecoverAtStart(const std::string& name) {
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> intent, context_.intents.Find(name));
  if (!intent.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const StoredFilter stored, records_.Get(name));
  const std::vector<std::string> exports = context_.attachments.ExportsOf(name);
  const absl::Status possible =
      exports_.CheckFilter(exports, intent->update_filter(), stored.resource, {});
  context_.logger.Log(
      LogLevel::kWarning, "filters",
      absl::StrCat("The update of ", name, " was cut off and is ",
                   possible.ok() ? "finished now." : "undone: " + possible.ToString()));
  if (!possible.ok()) {
    return TakeBack(intent->request(), intent->update_filter(), stored.revision, exports);
  }
  return Settle(intent->request(), stored.resource, stored.revision, exports).status();
}

}  // namespace gabion::service
