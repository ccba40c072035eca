// Named filters: rows, and what an update of one does to the exports that have it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/v1/filter.pb.h"
#include "service/domain/call.h"
#include "service/domain/export_manager.h"
#include "service/domain/manager_context.h"
#include "service/domain/reconciler.h"
#include "service/domain/records.h"

namespace gabion::service {

// A filter is a row; it does something where exports name it, and these look its row up whenever
// they are served. An update is the row and an intent, the effect on each export, and the row
// again, under the locks of the filter and of all its exports; one that fails is taken back on
// those that have changed already. Owned by the domain; any thread of the executor, which blocks.
class FilterManager {
 public:
  using StoredFilter = Stored<v1::Filter>;

  // `exports` outlives this.
  FilterManager(const ManagerContext& context, ExportManager& exports,
                ReconcilerOptions reconciler);

  absl::StatusOr<v1::Filter> Create(const v1::CreateFilterRequest& request, const Call& call);
  absl::StatusOr<v1::Filter> Get(const std::string& name) const;
  // One answer for each, in order.
  std::vector<absl::StatusOr<v1::Filter>> GetMany(const std::vector<std::string>& names) const;
  absl::StatusOr<v1::ListFiltersResponse> List(const v1::ListFiltersRequest& request) const;
  absl::StatusOr<v1::Filter> Update(const v1::UpdateFilterRequest& request, const Call& call);
  absl::Status Delete(const v1::DeleteFilterRequest& request, const Call& call);

  // Reads which images filters name. Call once, before the images are recovered.
  absl::Status Load();
  // Finishes or takes back updates that the last run left unfinished. Call once, when the images
  // are recovered and before the exports are: nothing is served, so that rows are all there is to
  // it.
  absl::Status Recover();
  // Ends the background work. Call before the engine stops.
  void Stop() { reconciler_.Stop(); }

 private:
  // The locks of a filter and of all that it is attached to.
  struct Around {
    ResourceLocks::Guard guard;
    std::vector<std::string> exports;
  };
  // `asked`: what the filter may become.
  absl::StatusOr<Around> Lock(const std::string& name, const v1::FilterSpec& asked,
                              const Patience& patience) const;

  absl::StatusOr<v1::Filter> Apply(const StoredFilter& before, v1::Filter after,
                                   const std::vector<std::string>& exports,
                                   const FilterChange& change, const Call& call);
  // Commits that what the intent was about has become `row`.
  absl::StatusOr<v1::Filter> Settle(const std::string& request, v1::Filter row, uint64_t revision,
                                    const std::vector<std::string>& exports);
  // Commits that it was taken back: the row is `row` again.
  absl::Status TakeBack(const std::string& request, const v1::Filter& row, uint64_t revision,
                        const std::vector<std::string>& exports);
  absl::Status CommitOrAgain(const std::string& name, const std::vector<Mutation>& steps);

  // Under the locks: finishes or takes back an update whose end could not be written.
  absl::Status SettleChange(const std::string& name, const std::vector<std::string>& exports);
  absl::Status RecoverChange(const StoredFilter& stored, const store::v1::Intent& intent,
                             const std::vector<std::string>& exports);
  absl::Status RecoverAtStart(const std::string& name);
  Reconciler::Outcome TryAgain(const std::string& name);

  v1::Filter Tell(v1::Filter row) const;
  // The images that a filter names: as it is about to be, those whose exports change, and for good.
  void TellImages(const v1::Filter& filter) const;
  void TouchImages(const std::string& name, std::vector<Mutation>* steps) const;
  void SettleImages(const std::string& name) const;

  const ManagerContext context_;
  ExportManager& exports_;
  Records<v1::Filter> records_;
  Reconciler reconciler_;  // last: it calls the others
};

}  // namespace gabion::service
