#include "service/domain/export_drain.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "service/domain/export_manager.h"
#include "service/domain/export_view.h"
#include "service/domain/filter_stack.h"
#include "service/domain/identity.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

// How often it looks whether clients have left, should nobody tell it, and how late it may be.
constexpr std::chrono::milliseconds kLook{500};

class DrainJob final : public Job {
 public:
  DrainJob(const ManagerContext& context, const ExportServing& serving, DrainEnd end,
           std::string operation, Stored<v1::Export> stored, store::v1::DrainWork work)
      : context_(context),
        serving_(serving),
        end_(std::move(end)),
        records_(context.store, kExports, kExportType),
        operation_(std::move(operation)),
        export_(std::move(stored.resource)),
        work_(std::move(work)) {}

  std::vector<std::string> Locks() const override { return {export_.name()}; }

  absl::StatusOr<JobProgress> Work(uint64_t /*from_bytes*/, uint64_t /*budget_bytes*/) override {
    // Another call may have asked for more.
    const absl::StatusOr<store::v1::Job> work = context_.operations.Work(operation_);
    if (work.ok() && work->has_drain()) work_ = work->drain();
    const bool waits = work_.mode() == v1::DeleteExportRequest::MODE_HIDE ||
                       work_.mode() == v1::DeleteExportRequest::MODE_SOFT;
    if (waits) {
      RETURN_IF_ERROR(Hide());
      if (!IsLate()) return Leave(engine::DeleteMode::kSafe, true);
    }
    switch (work_.mode()) {
      case v1::DeleteExportRequest::MODE_SOFT:
        return Leave(engine::DeleteMode::kShutdown, false);
      case v1::DeleteExportRequest::MODE_HARD:
        return Leave(engine::DeleteMode::kHard, false);
      default:
        return Leave(engine::DeleteMode::kSafe, false);
    }
  }

  absl::StatusOr<JobOutcome> Finish() override {
    ASSIGN_OR_RETURN(const Stored<v1::Export> row, Row());
    context_.index.Unlink(export_.name());
    context_.attachments.Tell(export_.name(), {});
    JobOutcome outcome;
    TouchFilters(&outcome);
    RETURN_IF_ERROR(context_.intents.Clear(export_.name(), context_.requests, &outcome.steps));
    outcome.steps.push_back(Touch(kImages, export_.source()));  // it has a dependent less
    outcome.steps.push_back(records_.Erasing(row));
    outcome.response.PackFrom(google::protobuf::Empty());
    outcome.committed = [this] { end_.gone(export_); };
    return outcome;
  }

  absl::StatusOr<JobOutcome> Undo(const absl::Status& /*why*/) override {
    ASSIGN_OR_RETURN(const std::optional<Stored<v1::Export>> row, records_.Find(export_.name()));
    JobOutcome outcome;
    if (!row.has_value()) {  // nothing can come back
      RETURN_IF_ERROR(serving_.Stop(export_, engine::DeleteMode::kHard));
      context_.index.Unlink(export_.name());
      context_.attachments.Tell(export_.name(), {});
      TouchFilters(&outcome);
      outcome.steps.push_back(Touch(kImages, export_.source()));  // it has a dependent less
      outcome.committed = [this] { end_.gone(export_); };
      return outcome;
    }
    if (row->resource.uid() != export_.uid()) return outcome;
    context_.index.Link(export_.name(), export_.source());
    context_.attachments.Tell(export_.name(), AttachedTo(export_));
    TouchFilters(&outcome);
    v1::Export back = row->resource;
    back.clear_operation();
    const ExportServing::State state = serving_.ServeOrChange(back);
    if (state.ok()) {
      back.set_state(v1::Export::STATE_ACTIVE);
      back.clear_state_error();
      back.set_observed_generation(back.generation());
    } else {
      back.set_state(v1::Export::STATE_FAILED);
      *back.mutable_state_error() = ToRpcStatus(state.status());
      outcome.committed = [this] { end_.not_served(export_); };
    }
    NoteServed(&back);
    outcome.steps.push_back(records_.Saving(back, row->revision));
    return outcome;
  }

  bool RetriesTransient() const override { return true; }
  bool MovesBytes() const override { return false; }

 private:
  absl::StatusOr<Stored<v1::Export>> Row() const {
    ASSIGN_OR_RETURN(Stored<v1::Export> row, records_.Get(export_.name()));
    if (row.resource.uid() == export_.uid()) return row;
    return absl::InternalError(absl::StrCat(export_.name(), " is another export by now."));
  }

  // The filters and images that have an attachment less, or have it again.
  void TouchFilters(JobOutcome* outcome) const {
    for (const std::string& name : context_.attachments.Changed(export_.name())) {
      outcome->steps.push_back(Touch(CollectionOfName(name), name));
    }
  }

  // No new clients from now on.
  absl::Status Hide() {
    if (hidden_) return absl::OkStatus();
    v1::Export hidden = export_;
    hidden.set_enabled(false);
    if (serving_.Look({export_.name()}).front().ok()) {
      RETURN_IF_ERROR(serving_.Change(hidden).status());
    }
    hidden_ = true;
    return absl::OkStatus();
  }

  bool IsLate() const {
    if (work_.mode() != v1::DeleteExportRequest::MODE_SOFT) return false;
    const google::protobuf::Timestamp now = Now();
    return std::pair(now.seconds(), now.nanos()) >=
           std::pair(work_.deadline().seconds(), work_.deadline().nanos());
  }

  // Stops serving; with `waits`, clients that are still there only mean that it is not done yet.
  absl::StatusOr<JobProgress> Leave(engine::DeleteMode mode, bool waits) {
    const absl::Status stopped = serving_.Stop(export_, mode);
    if (waits && InfoOf(stopped).reason() == reason::kExportHasConnections.name) {
      return JobProgress{0, 0, false, kLook};
    }
    RETURN_IF_ERROR(stopped);
    return JobProgress{0, 0, true};
  }

  const ManagerContext context_;
  const ExportServing& serving_;
  const DrainEnd end_;
  const Records<v1::Export> records_;
  const std::string operation_;
  const v1::Export export_;
  store::v1::DrainWork work_;
  bool hidden_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Job>> NewDrainJob(const ManagerContext& context,
                                                 const ExportServing& serving, DrainEnd end,
                                                 const std::string& operation,
                                                 const v1::JobMetadata& metadata,
                                                 const store::v1::Job& stored) {
  const Records<v1::Export> records(context.store, kExports, kExportType);
  ASSIGN_OR_RETURN(Stored<v1::Export> exported, records.Get(metadata.target()));
  return std::make_unique<DrainJob>(context, serving, std::move(end), operation,
                                    std::move(exported), stored.drain());
}

}  // namespace gabion::service
