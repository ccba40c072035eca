// Checks of images and filters of exports by the fake engine.
#include <chrono>
#include <utility>

#include "engine/base/status_macros.h"
#include "tests/service/fake_engine.h"

namespace gabion::service {

using engine::CheckControl;
using engine::CheckReport;
using engine::ImageRepair;
using engine::ImageSpec;

void FakeEngine::SetReport(CheckReport report) {
  const std::lock_guard lock(mutex_);
  report_ = std::move(report);
}

void FakeEngine::HoldChecks() {
  const std::lock_guard lock(mutex_);
  holds_checks_ = true;
}

void FakeEngine::ReleaseChecks() {
  const std::lock_guard lock(mutex_);
  holds_checks_ = false;
  called_.notify_all();
}

void FakeEngine::AwaitHeldCheck() {
  std::unique_lock lock(mutex_);
  called_.wait(lock, [this] { return held_checks_ > 0; });
}

// Nobody tells that a check is cancelled: it looks.
absl::Status FakeEngine::StayInTheMiddle(CheckControl& control) {
  constexpr std::chrono::milliseconds kLook(1);
  constexpr uint64_t kTotal = 100;
  control.total = kTotal;
  control.done = kTotal / 2;
  std::unique_lock lock(mutex_);
  ++held_checks_;
  called_.notify_all();
  while (holds_checks_ && !control.cancel) called_.wait_for(lock, kLook);
  --held_checks_;
  if (control.cancel) return absl::CancelledError("The check was cancelled.");
  control.done = kTotal;
  return absl::OkStatus();
}

absl::StatusOr<CheckReport> FakeEngine::Report(const ImageSpec& spec, ImageRepair repair) {
  RETURN_IF_ERROR(Info(spec).status());
  RETURN_IF_ERROR(CheckUnlocked(spec));
  if (repair != ImageRepair::kNone) RETURN_IF_ERROR(CheckUnused(spec));
  const std::lock_guard lock(mutex_);
  if (repair == ImageRepair::kNone) return report_;
  report_.corruptions_fixed = std::exchange(report_.corruptions, 0);
  report_.leaks_fixed = std::exchange(report_.leaks, 0);
  return report_;
}

void FakeEngine::CheckImage(ImageSpec spec, ImageRepair repair, CheckControl* control,
                            engine::Callback<absl::StatusOr<CheckReport>> done) {
  const char* const method = repair == ImageRepair::kNone ? "CheckImage" : "RepairImage";
  checks_.Run(
      [this, spec = std::move(spec), repair, control, method, done = std::move(done)]() mutable {
        const absl::Status stayed = StayInTheMiddle(*control);
        Do<absl::StatusOr<CheckReport>>(
            method, std::move(done), [this, spec, repair, stayed]() -> absl::StatusOr<CheckReport> {
              RETURN_IF_ERROR(stayed);
              return Report(spec, repair);
            });
      });
}

void FakeEngine::SetStackCheck(std::function<absl::Status(const engine::ExportSpec&)> check) {
  const std::lock_guard lock(mutex_);
  stack_check_ = std::move(check);
}

absl::Status FakeEngine::CheckStack(const engine::ExportSpec& spec) const {
  std::function<absl::Status(const engine::ExportSpec&)> check;
  {
    const std::lock_guard lock(mutex_);
    check = stack_check_;
  }
  return check ? check(spec) : absl::OkStatus();
}

void FakeEngine::SetStatistics(const std::string& entry_id, filters::Statistics statistics) {
  const std::lock_guard lock(mutex_);
  statistics_[entry_id] = std::move(statistics);
}

void FakeEngine::GetFilterStatistics(
    std::string export_name,
    engine::Callback<absl::StatusOr<std::vector<engine::FilterStatistics>>> done) {
  using All = std::vector<engine::FilterStatistics>;
  Do<absl::StatusOr<All>>("GetFilterStatistics", std::move(done),
                          [this, export_name]() -> absl::StatusOr<All> {
                            const std::lock_guard lock(mutex_);
                            const auto found = exports_.find(export_name);
                            if (found == exports_.end()) return absl::NotFoundError(export_name);
                            All all;
                            for (const engine::FilterEntry& entry : found->second.spec.filters) {
                              const auto counted = statistics_.find(entry.id);
                              engine::FilterStatistics one{entry.id, entry.bypassed, {}};
                              if (counted != statistics_.end()) one.statistics = counted->second;
                              all.push_back(std::move(one));
                            }
                            return all;
                          });
}

}  // namespace gabion::service
