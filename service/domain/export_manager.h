// Exports: what is wanted, in the store; what is served, in the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "google/longrunning/operations.pb.h"
#include "service/domain/call.h"
#include "service/domain/export_serving.h"
#include "service/domain/image_manager.h"
#include "service/domain/manager_context.h"
#include "service/domain/reconciler.h"
#include "service/domain/records.h"

namespace gabion::service {

struct ExportOptions {
  // How long an export that cannot be served waits until it is tried again.
  ReconcilerOptions reconciler;
  uint32_t max_connections = 256;  // to one export, whatever its own limit is
  uint32_t max_exports = 16'384;
};

// A change is a row and an intent, the effect, and the row again; one that fails is taken back. An
// export that exists but cannot be served (its image is missing, or another process has it) is
// STATE_FAILED in its row and is tried again in the background. Deleting is an operation
// (export_drain.h). Owned by the domain; any thread of the executor, which blocks.
class ExportManager {
 public:
  using StoredExport = Stored<v1::Export>;

  // `images` outlives this.
  ExportManager(const ManagerContext& context, ImageManager& images, ExportOptions options);

  absl::StatusOr<v1::Export> Create(const v1::CreateExportRequest& request, const Call& call);
  absl::StatusOr<v1::Export> Get(const std::string& name) const;
  // One answer for each, in order, with one look at all of them.
  std::vector<absl::StatusOr<v1::Export>> GetMany(const std::vector<std::string>& names) const;
  absl::StatusOr<v1::ListExportsResponse> List(const v1::ListExportsRequest& request) const;
  absl::StatusOr<v1::Export> Update(const v1::UpdateExportRequest& request, const Call& call);
  absl::StatusOr<v1::Export> AttachFilter(const v1::AttachFilterRequest& request, const Call& call);
  absl::StatusOr<v1::Export> DetachFilter(const v1::DetachFilterRequest& request, const Call& call);
  absl::StatusOr<google::longrunning::Operation> Delete(const v1::DeleteExportRequest& request,
                                                        const Call& call);

  // What a change of a filter needs of the exports in `names` that have it. The caller holds their
  // locks alone, and shares those of AroundAll().
  //
  // Finishes or takes back what could not be written of earlier changes.
  absl::Status SettleChanges(const std::vector<std::string>& names);
  // What ChangeFilter() would answer. Nothing need be served; what cannot be served as it is, is
  // not asked.
  absl::Status CheckFilter(const std::vector<std::string>& names, const v1::Filter& before,
                           const v1::Filter& after, const FilterChange& change) const;
  // Brings those that are served to `filter`, whatever its row says, up to the first error, which
  // names the export. Those that it was tried with are added to `done`.
  absl::Status ChangeFilter(const std::vector<std::string>& names, const v1::Filter& filter,
                            const FilterChange& change, std::vector<std::string>* done) const;
  // Those of `names` that are images may not be needed any more.
  void ReleaseImages(const std::vector<std::string>& names);
  // What cannot be served because of the filter may be able to now.
  void FilterChanged(const std::vector<std::string>& names);
  // What must not change meanwhile, besides the exports: names for a shared lock.
  absl::StatusOr<std::set<std::string>> AroundAll(const std::vector<std::string>& names) const;

  // RESOURCE_NOT_FOUND unless there is such an export.
  absl::Status CheckExists(const std::string& name) const;
  // The row of an export that is served; otherwise why it is not.
  absl::StatusOr<v1::Export> ServedRow(const std::string& name) const;
  // Those that have clients now.
  std::vector<std::string> WithConnections() const;
  // A client has left: an export that is being deleted may be done.
  void ClientLeft(const std::string& name);

  // Reads which exports there are: an image is in use from here on. Call once, before the images
  // are recovered.
  absl::Status Load();
  // Serves everything again, and finishes or undoes what the last run left unfinished. Call once,
  // before any other call, when the images are recovered.
  absl::Status Recover();
  // Ends the background work. Call before the engine stops.
  void Stop() { reconciler_.Stop(); }

 private:
  absl::StatusOr<v1::Export> NewExport(const v1::CreateExportRequest& request) const;
  std::optional<v1::FilterSpec> FindFilterSpec(const std::string& name) const;
  // The named filters, with the one that `change` has instead of the one that there is; `change`
  // outlives it.
  FindFilter FiltersWith(const FilterChange& change) const;
  // ImagesNeededBy() and ImagesWrittenBy(), with these filters.
  std::set<std::string> NeededBy(const v1::Export& exported, const FilterChange& change = {}) const;
  std::set<std::string> WrittenBy(const v1::Export& exported,
                                  const FilterChange& change = {}) const;
  // Errors of images that `exported` comes to need, or to write to: it has `needed` and writes to
  // `written` already.
  absl::Status CheckImages(const v1::Export& exported, const std::set<std::string>& needed,
                           const std::set<std::string>& written) const;
  // Errors of images that cannot become ones that an export writes to.
  absl::Status CheckWritable(const std::set<std::string>& images) const;
  // What must not change while `exported` is made, besides itself: names for a shared lock.
  std::set<std::string> Around(const v1::Export& exported) const;
  // What is around the export as its row says, as it was before a change that may yet be taken
  // back, and as it is `asked` for (null: as it is).
  absl::StatusOr<std::set<std::string>> AroundVersions(const std::string& name,
                                                       const v1::Export* asked) const;
  // Locks `name` alone, and shares what is around it then, see AroundVersions().
  absl::StatusOr<ResourceLocks::Guard> LockAround(const std::string& name, const v1::Export* asked,
                                                  const Patience& patience) const;
  // What was told of the export's filters holds.
  void SettleAttachments(const std::string& name);
  absl::Status CheckNames(const v1::Export& exported) const;
  absl::Status TakeNames(const v1::Export& exported);
  // TOO_MANY_EXPORTS unless there are at most `most`.
  absl::Status CheckCount(std::size_t most) const;
  absl::StatusOr<v1::Export> Establish(v1::Export exported, const Call& call);
  absl::StatusOr<v1::Export> UpdateExisting(const StoredExport& before,
                                            const v1::UpdateExportRequest& request,
                                            const Call& call);
  // The same for any change: what is told of `before` is `shown`.
  absl::StatusOr<v1::Export> Bring(const StoredExport& before, const v1::Export& shown,
                                   v1::Export after, const FilterChange& change, const Call& call);
  // The row to change one entry of its stack; with the errors of every change.
  absl::StatusOr<StoredExport> RowToChange(const std::string& name, const std::string& etag);
  // OPERATION_IN_PROGRESS while it is being deleted.
  static absl::Status CheckNotDeleted(const v1::Export& exported);
  absl::StatusOr<v1::Export> AnswerAsItIs(const v1::Export& shown, const Call& call);
  // Brings what is served from `before` to `after`. What cannot be served already, for the same
  // reason, does not keep its resource from changing.
  absl::StatusOr<v1::Export> Apply(const StoredExport& before, v1::Export after,
                                   const FilterChange& change, const Call& call);
  // Commits that what `intent` was about has become `row`, and that this was `told`.
  absl::StatusOr<v1::Export> Settle(const std::string& request, const v1::Export& row,
                                    uint64_t revision, const v1::Export& told);
  // Commits that it was taken back: the row is `row` again, or gone.
  absl::Status TakeBack(const std::string& request, const StoredExport& stored,
                        const v1::Export* row);

  absl::Status CommitOrAgain(const std::string& name, const std::vector<Mutation>& steps);
  // The filters that have an attachment more or less.
  void TouchFilters(const std::string& name, std::vector<Mutation>* steps) const;
  void FreeNames(const std::string& name);

  // Begins a deletion; the operation, to be started.
  absl::StatusOr<std::string> BeginDrain(const StoredExport& stored,
                                         const v1::DeleteExportRequest& request, const Call& call);
  absl::StatusOr<google::longrunning::Operation> JoinDrain(const v1::Export& exported,
                                                           const v1::DeleteExportRequest& request,
                                                           const Call& call);
  // An export that is no more, once its row is gone.
  void Forget(const v1::Export& exported);

  absl::Status RecoverOne(const StoredExport& stored);
  absl::Status ClearStrays();
  // Under the locks of the export and what is around it: finishes or takes back a change whose end
  // could not be written.
  absl::Status SettleChange(const std::string& name);
  absl::Status RecoverChange(const StoredExport& stored, const store::v1::Intent& intent);
  // Writes that `row` is served, or why it is not, unless it says so already.
  absl::Status WriteServed(const StoredExport& stored, const ExportServing::State& state);
  Reconciler::Outcome TryAgain(const std::string& name);

  std::vector<v1::Export> Show(std::vector<v1::Export> rows) const;
  v1::Export Tell(const v1::Export& row, const ExportServing::State& state) const;
  // The same for a dry run, which leaves nothing.
  v1::Export TellTrial(const v1::Export& row, const ExportServing::State& state) const;
  void LogError(const std::string& what, const absl::Status& status) const;

  const ManagerContext context_;
  ImageManager& images_;
  const ExportServing serving_;
  const std::size_t max_exports_;
  Records<v1::Export> records_;
  Reconciler reconciler_;  // last: it calls the others
};

}  // namespace gabion::service
