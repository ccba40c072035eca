#include "engine/filters/verifying/verifier.h"

#include <chrono>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/reason.h"

namespace gabion::filters::verifying {
namespace {

constexpr runtime::Duration kQuietTime = std::chrono::seconds(10);

}  // namespace

Verifier::Verifier(block::Node& child, block::Limits limits, Environment environment,
                   block::Node& reference, std::string_view name, const VerifyOptions& options)
    : LiveFilter(child, std::move(limits), std::move(environment)),
      reference_(reference),
      name_(name),
      options_(options) {
  for (const block::Limits* const each : {&child.limits(), &reference.limits()}) {
    CHECK_EQ(each->alignment.value, 1u);
    CHECK_EQ(each->memory_alignment, 1u);
  }
}

Statistics Verifier::GetStatistics() const {
  Statistics statistics;
  statistics.counters = {{"compared_bytes", compared_bytes_},
                         {"mismatches", mismatches_},
                         {"reference_failures", reference_failures_}};
  return statistics;
}

void Verifier::TakeOver(Filter& before) {
  const auto& other = static_cast<const Verifier&>(before);
  compared_bytes_ = other.compared_bytes_;
  mismatches_ = other.mismatches_;
  reference_failures_ = other.reference_failures_;
  quiet_until_ = other.quiet_until_;
}

absl::Status Verifier::Mismatch(const std::string& message, uint64_t count) {
  mismatches_ += count;
  return Judge(Blame(absl::DataLossError(message)));
}

absl::Status Verifier::ReferenceFailed(const absl::Status& status) {
  ++reference_failures_;
  return Judge(OfReference(status));
}

absl::Status Verifier::OfReference(const absl::Status& status) const {
  return status.ok() ? status : Blame(Annotate(status, name_));
}

absl::Status Verifier::Judge(const absl::Status& finding) {
  if (options_.on_mismatch == VerifyOptions::OnMismatch::kFail) return finding;
  const runtime::Instant now = environment().clock.Now();
  if (now < quiet_until_) return absl::OkStatus();
  quiet_until_ = now + kQuietTime;
  environment().logger.Log(LogLevel::kWarning, "filters", finding.ToString());
  return absl::OkStatus();
}

}  // namespace gabion::filters::verifying
