// The base of filters that hold what is read against something else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/filters/verifying/verify_options.h"
#include "engine/runtime/clock.h"

namespace gabion::filters::verifying {

// Counts, and decides what becomes of a read by what was found: compared_bytes, mismatches,
// reference_failures.
//
// Owned by a stack, as every filter; used on its shard.
class Verifier : public LiveFilter<VerifyOptions> {
 public:
  void Configure(const VerifyOptions& options) override { options_ = options; }
  Statistics GetStatistics() const override;
  // From any Verifier.
  void TakeOver(Filter& before) override;

 protected:
  // `reference` outlives the filter; `name`: what people call it. REQUIRES: the alignment of both
  // nodes is 1.
  Verifier(block::Node& child, block::Limits limits, Environment environment,
           block::Node& reference, std::string_view name, const VerifyOptions& options);

  block::Node& reference() { return reference_; }
  const block::Node& reference() const { return reference_; }

  void CountCompared(uint64_t bytes) { compared_bytes_ += bytes; }
  // The outcome of a read for which `message` holds, which tells of `count` mismatches: kDataLoss,
  // or OK where findings are only reported. Likewise if the reference answered with `status`.
  absl::Status Mismatch(const std::string& message, uint64_t count = 1);
  absl::Status ReferenceFailed(const absl::Status& status);
  // Says where `status` comes from, if it is an error.
  absl::Status OfReference(const absl::Status& status) const;

 private:
  absl::Status Judge(const absl::Status& finding);

  block::Node& reference_;
  const std::string name_;
  VerifyOptions options_;
  uint64_t compared_bytes_ = 0;
  uint64_t mismatches_ = 0;
  uint64_t reference_failures_ = 0;
  runtime::Instant quiet_until_;
};

}  // namespace gabion::filters::verifying
