#include "service/domain/export_manager.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/export_drain.h"
#include "service/domain/export_spec.h"
#include "service/domain/export_view.h"
#include "service/domain/identity.h"
#include "service/domain/list_query.h"
#include "service/domain/lister.h"
#include "service/domain/resource_diff.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

absl::Status NameInUse(const std::string& other) {
  const std::string message = absl::StrCat("The name is in use by ", other, ".");
  return Error(reason::kResourceExists, message)
      .Field("export.nbd_name", message)
      .Resource(kExportType, other);
}

}  // namespace

ExportManager::ExportManager(const ManagerContext& context, ImageManager& images,
                             ExportOptions options)
    : context_(context),
      images_(images),
      serving_(context.engine, context.store, images,
               {options.max_connections, context.allow_fault_filters}),
      max_exports_(options.max_exports),
      records_(context.store, kExports, kExportType),
      reconciler_(options.reconciler, [this](const std::string& name) { return TryAgain(name); }) {
  const DrainEnd end{
      [this](const v1::Export& exported) { Forget(exported); },
      [this](const v1::Export& exported) { reconciler_.AddFailed(exported.name()); }};
  context_.operations.Register(store::v1::Job::kDrain, [this, end](const std::string& operation,
                                                                   const v1::JobMetadata& metadata,
                                                                   const store::v1::Job& job) {
    return NewDrainJob(context_, serving_, end, operation, metadata, job);
  });
}

void ExportManager::LogError(const std::string& what, const absl::Status& status) const {
  context_.logger.Log(LogLevel::kError, "exports", absl::StrCat(what, ": ", status.ToString()));
}

v1::Export ExportManager::Tell(const v1::Export& row, const ExportServing::State& state) const {
  return TellExport(row, state, serving_.info(), context_.chains, context_.conditions);
}

v1::Export ExportManager::TellTrial(const v1::Export& row,
                                    const ExportServing::State& state) const {
  ConditionLog trial(context_.conditions, row.uid());
  return TellExport(row, state, serving_.info(), context_.chains, trial);
}

std::vector<v1::Export> ExportManager::Show(std::vector<v1::Export> rows) const {
  std::vector<std::string> names;
  for (const v1::Export& row : rows) names.push_back(row.name());
  const std::vector<ExportServing::State> states = serving_.Look(names);
  std::vector<v1::Export> shown;
  for (std::size_t i = 0; i < rows.size(); ++i) shown.push_back(Tell(rows[i], states[i]));
  return shown;
}

absl::StatusOr<v1::Export> ExportManager::Get(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredExport stored, records_.Get(name));
  return Show({stored.resource}).front();
}

std::vector<absl::StatusOr<v1::Export>> ExportManager::GetMany(
    const std::vector<std::string>& names) const {
  const std::vector<absl::StatusOr<StoredExport>> stored = records_.GetMany(names);
  std::vector<v1::Export> rows;
  for (const absl::StatusOr<StoredExport>& one : stored) {
    if (one.ok()) rows.push_back(one->resource);
  }
  std::vector<v1::Export> shown = Show(std::move(rows));
  std::vector<absl::StatusOr<v1::Export>> exports;
  std::size_t next = 0;
  for (const absl::StatusOr<StoredExport>& one : stored) {
    if (one.ok()) {
      exports.emplace_back(std::move(shown[next++]));
    } else {
      exports.emplace_back(one.status());
    }
  }
  return exports;
}

absl::StatusOr<v1::ListExportsResponse> ExportManager::List(
    const v1::ListExportsRequest& request) const {
  ASSIGN_OR_RETURN(const ListQuery query,
                   ListQuery::Parse(request, v1::Export::descriptor(), context_.tokens));
  const auto view = [&](const std::vector<Row>& rows) -> absl::StatusOr<std::vector<v1::Export>> {
    std::vector<v1::Export> exports;
    for (const Row& row : rows) {
      ASSIGN_OR_RETURN(StoredExport stored, records_.Parse(row));
      exports.push_back(std::move(stored.resource));
    }
    return Show(std::move(exports));
  };
  ASSIGN_OR_RETURN(Listed<v1::Export> listed,
                   ListRows<v1::Export>(context_.store, kExports, {}, query, view));
  v1::ListExportsResponse response;
  for (v1::Export& exported : listed.resources) *response.add_exports() = std::move(exported);
  response.set_next_page_token(std::move(listed.next_page_token));
  response.set_revision(listed.revision);
  return response;
}

// What was asked for, with everything that may be left out; refused if its name is taken.
absl::StatusOr<v1::Export> ExportManager::NewExport(const v1::CreateExportRequest& request) const {
  v1::Export exported = request.export_();
  exported.set_name(MakeName(kExports, request.export_id()));
  exported.clear_etag();
  if (exported.nbd_name().empty()) exported.set_nbd_name(request.export_id());
  if (!exported.has_enabled()) exported.set_enabled(true);
  RETURN_IF_ERROR(CompleteStack(&exported));
  ASSIGN_OR_RETURN(const std::optional<StoredExport> old, records_.Find(exported.name()));
  if (old.has_value()) {
    return ExistsAlready(exported, old->resource, kExportType, exported.name());
  }
  RETURN_IF_ERROR(CheckIsBuilt(exported));
  RETURN_IF_ERROR(images_.ActiveSpec(exported.source(), "export.source").status());
  RETURN_IF_ERROR(serving_.CheckStack(exported, {}, {exported.source()}));
  RETURN_IF_ERROR(CheckImages(exported, {}, {}));
  RETURN_IF_ERROR(CheckNames(exported));
  RETURN_IF_ERROR(CheckCount(max_exports_ - 1));
  exported.set_uid(NewUid());
  exported.set_generation(1);
  *exported.mutable_create_time() = Now();
  *exported.mutable_update_time() = exported.create_time();
  exported.set_state(v1::Export::STATE_CREATING);
  return exported;
}

// Its images, its filters, and the export that has its wire name. That one may be on its way out:
// its row is gone before its names are free, both under its lock, so that who saw the row gone gets
// the name.
std::set<std::string> ExportManager::Around(const v1::Export& exported) const {
  const std::vector<std::string> attached = AttachedTo(exported);
  std::set<std::string> names(attached.begin(), attached.end());
  names.merge(NeededBy(exported));
  const std::string& nbd_name = exported.nbd_name();
  const std::optional<std::string> owner =
      context_.index.OwnerOf(nbd_name.empty() ? std::string(IdOf(exported.name())) : nbd_name);
  if (owner.has_value()) names.insert(*owner);
  return names;
}

absl::StatusOr<std::set<std::string>> ExportManager::AroundVersions(const std::string& name,
                                                                    const v1::Export* asked) const {
  std::set<std::string> around;
  if (asked != nullptr) around = Around(*asked);
  ASSIGN_OR_RETURN(const std::optional<StoredExport> stored, records_.Find(name));
  if (!stored.has_value()) return around;
  around.merge(Around(stored->resource));
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> change, context_.intents.Find(name));
  const bool changes = change.has_value() && change->has_update_export();
  if (changes) around.merge(Around(change->update_export()));
  return around;
}

absl::StatusOr<std::set<std::string>> ExportManager::AroundAll(
    const std::vector<std::string>& names) const {
  std::set<std::string> all;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(std::set<std::string> around, AroundVersions(name, nullptr));
    all.merge(around);
  }
  return all;
}

// An export keeps its row while it is locked, and a filter its images: once they are, it is known
// whether something was missed.
absl::StatusOr<ResourceLocks::Guard> ExportManager::LockAround(const std::string& name,
                                                               const v1::Export* asked,
                                                               const Patience& patience) const {
  for (;;) {
    ASSIGN_OR_RETURN(const std::set<std::string> around, AroundVersions(name, asked));
    const std::vector<std::string> shared(around.begin(), around.end());
    ASSIGN_OR_RETURN(ResourceLocks::Guard guard, context_.locks.LockFor(patience, {name}, shared));
    ASSIGN_OR_RETURN(const std::set<std::string> now, AroundVersions(name, asked));
    if (std::includes(around.begin(), around.end(), now.begin(), now.end())) return guard;
  }
}

absl::Status ExportManager::CheckNames(const v1::Export& exported) const {
  const std::optional<std::string> other = context_.index.OwnerOf(exported.nbd_name());
  if (!other.has_value() || *other == exported.name()) return absl::OkStatus();
  return NameInUse(*other);
}

absl::Status ExportManager::CheckCount(std::size_t most) const {
  if (context_.index.size() <= most) return absl::OkStatus();
  const std::string limit = absl::StrCat(max_exports_);
  const std::string message = absl::StrCat("There are ", limit, " exports already.");
  return Error(reason::kTooManyExports, message)
      .Metadata("limit", limit)
      .Quota(kExports, "Delete some, or have the operator raise max-exports.");
}

absl::Status ExportManager::TakeNames(const v1::Export& exported) {
  const std::optional<std::string> other =
      context_.index.Add(exported.name(), exported.nbd_name(), exported.source());
  if (other.has_value() && *other != exported.name()) return NameInUse(*other);
  context_.attachments.Tell(exported.name(), AttachedTo(exported));
  return absl::OkStatus();
}

void ExportManager::FreeNames(const std::string& name) {
  context_.attachments.Remove(name);
  context_.index.Remove(name);
}

void ExportManager::TouchFilters(const std::string& name, std::vector<Mutation>* steps) const {
  for (const std::string& other : context_.attachments.Changed(name)) {
    steps->push_back(Touch(CollectionOfName(other), other));
  }
}

absl::StatusOr<v1::Export> ExportManager::Create(const v1::CreateExportRequest& request,
                                                 const Call& call) {
  v1::Export asked = request.export_();
  asked.set_name(MakeName(kExports, request.export_id()));
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                   LockAround(asked.name(), &asked, call.patience));
  ASSIGN_OR_RETURN(v1::Export exported, NewExport(request));
  return Establish(std::move(exported), call);
}

absl::StatusOr<v1::Export> ExportManager::Establish(v1::Export exported, const Call& call) {
  if (call.validate_only) {
    const ExportServing::State planned = serving_.Check(exported);
    if (!planned.ok()) return planned.status();
    SetServed(&exported);
    return TellTrial(exported, planned);
  }
  RETURN_IF_ERROR(TakeNames(exported));
  const std::string name = exported.name();
  // Others may have come at the same time.
  if (const absl::Status fits = CheckCount(max_exports_); !fits.ok()) {
    FreeNames(name);
    return fits;
  }
  store::v1::Intent intent;
  intent.set_request(call.request);
  intent.set_create_export(true);
  std::vector<Mutation> steps = {Intents::Writing(name, intent)};
  RequestLog::Begin(call, &steps);
  Mutation add = records_.Adding(exported);
  const absl::StatusOr<StoredExport> creating =
      records_.Commit(std::move(steps), std::move(add), std::move(exported));
  if (!creating.ok()) {
    FreeNames(name);
    return creating.status();
  }
  const ExportServing::State state = serving_.Serve(creating->resource);
  if (!state.ok()) {
    // If even this fails, the next start finds the intent.
    const absl::Status undone = TakeBack(call.request, *creating, nullptr);
    if (!undone.ok()) LogError(absl::StrCat("The creation of ", name, " was not undone"), undone);
    return state.status();
  }
  v1::Export active = creating->resource;
  SetServed(&active);
  absl::StatusOr<v1::Export> told =
      Settle(call.request, active, creating->revision, Tell(active, state));
  if (told.ok()) return told;
  RETURN_IF_ERROR(serving_.Stop(active, engine::DeleteMode::kHard));
  const absl::Status undone = TakeBack(call.request, *creating, nullptr);
  if (!undone.ok()) LogError(absl::StrCat("The creation of ", name, " was not undone"), undone);
  return told.status();
}

absl::StatusOr<v1::Export> ExportManager::Settle(const std::string& request, const v1::Export& row,
                                                 uint64_t revision, const v1::Export& told) {
  std::vector<Mutation> steps = {Intents::Removing(row.name())};
  RETURN_IF_ERROR(context_.requests.Answer(request, told, &steps));
  if (row.generation() == 1) steps.push_back(Touch(kImages, row.source()));  // a dependent more
  TouchFilters(row.name(), &steps);
  steps.push_back(records_.Saving(row, revision));
  RETURN_IF_ERROR(CommitOrAgain(row.name(), steps));
  SettleAttachments(row.name());
  return told;
}

// If it cannot be written now how a change ended, the intent stays, and it is tried again.
absl::Status ExportManager::CommitOrAgain(const std::string& name,
                                          const std::vector<Mutation>& steps) {
  absl::Status written = context_.store.Commit(steps).status();
  if (!written.ok()) reconciler_.AddFailed(name);
  return written;
}

absl::Status ExportManager::TakeBack(const std::string& request, const StoredExport& stored,
                                     const v1::Export* row) {
  std::vector<Mutation> steps = {Intents::Removing(stored.resource.name())};
  RETURN_IF_ERROR(context_.requests.Forget(request, &steps));
  if (row == nullptr) {
    context_.index.Unlink(stored.resource.name());
    steps.push_back(Touch(kImages, stored.resource.source()));  // a dependent less
  }
  const std::string& name = stored.resource.name();
  context_.attachments.Tell(name, row == nullptr ? std::vector<std::string>() : AttachedTo(*row));
  TouchFilters(name, &steps);
  steps.push_back(row == nullptr ? records_.Erasing(stored)
                                 : records_.Saving(*row, stored.revision));
  RETURN_IF_ERROR(CommitOrAgain(name, steps));
  SettleAttachments(name);
  if (row == nullptr) Forget(stored.resource);
  return absl::OkStatus();
}

// An image that has an export less may have waited for that.
void ExportManager::SettleAttachments(const std::string& name) {
  const std::vector<std::string> changed = context_.attachments.Changed(name);
  context_.attachments.Settle(name);
  ReleaseImages(changed);
}

void ExportManager::ReleaseImages(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (CollectionOfName(name) == kImages) images_.Released(name);
  }
}

void ExportManager::Forget(const v1::Export& exported) {
  const std::set<std::string> around = Around(exported);
  FreeNames(exported.name());
  context_.conditions.Forget(exported.uid());
  reconciler_.Remove(exported.name());
  ReleaseImages({around.begin(), around.end()});
}

absl::Status ExportManager::CheckExists(const std::string& name) const {
  return records_.Get(name).status();
}

absl::StatusOr<v1::Export> ExportManager::ServedRow(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredExport stored, records_.Get(name));
  if (stored.resource.state() == v1::Export::STATE_FAILED) {
    return FromRpcStatus(stored.resource.state_error());
  }
  return stored.resource;
}

std::vector<std::string> ExportManager::WithConnections() const {
  constexpr std::size_t kAtOnce = 512;
  const std::vector<std::string> all = context_.index.All();
  std::vector<std::string> found;
  for (std::size_t begin = 0; begin < all.size(); begin += kAtOnce) {
    const std::size_t end = std::min(begin + kAtOnce, all.size());
    const std::vector<std::string> names(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                         all.begin() + static_cast<std::ptrdiff_t>(end));
    const std::vector<ExportServing::State> states = serving_.Look(names);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (states[i].ok() && states[i]->connection_count > 0) found.push_back(names[i]);
    }
  }
  return found;
}

}  // namespace gabion::service
