// Checks of images by the fake engine.
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

}  // namespace gabion::service
