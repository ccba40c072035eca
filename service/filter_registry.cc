#include "service/filter_registry.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

using runtime::Duration;
using v1::FilterSpec;

constexpr uint64_t kEnd = ~uint64_t{0};

absl::Status Invalid(const std::string& field, std::string_view message) {
  return Error(reason::kFilterParametersInvalid, message).Field(field, message);
}

Duration FromProto(const google::protobuf::Duration& value) {
  return std::chrono::seconds(value.seconds()) + std::chrono::nanoseconds(value.nanos());
}

// `to_end`: the length of a range that goes to the end of the disk, however long that is.
template <typename Range>
ByteRange RangeOf(const Range& range, uint64_t to_end) {
  const uint64_t length = range.length_bytes() == 0 ? to_end : range.length_bytes();
  return {ByteOffset{range.offset_bytes()}, ByteCount{length}};
}

template <typename Range>
absl::Status CheckRange(const Range& range, const std::string& path) {
  if (range.length_bytes() <= kEnd - range.offset_bytes()) return absl::OkStatus();
  return Invalid(absl::StrCat(path, ".length_bytes"), "The range ends beyond 2^64 - 1.");
}

filters::Rate RateOf(const v1::ThrottleSpec::Limit& limit) {
  filters::Rate rate;
  rate.per_second = limit.average_per_second();
  rate.burst_per_second = limit.burst_per_second();
  if (limit.has_burst_length()) rate.burst_length = FromProto(limit.burst_length());
  return rate;
}

engine::FilterOptions Throttle(const FilterSpec& spec) {
  const v1::ThrottleSpec& throttle = spec.throttle();
  filters::ThrottleOptions options;
  options.read_bytes = RateOf(throttle.read_bytes());
  options.write_bytes = RateOf(throttle.write_bytes());
  options.total_bytes = RateOf(throttle.total_bytes());
  options.read_operations = RateOf(throttle.read_ops());
  options.write_operations = RateOf(throttle.write_ops());
  options.total_operations = RateOf(throttle.total_ops());
  options.operation_unit = throttle.iops_unit_bytes();
  return options;
}

absl::Status CheckThrottle(const FilterSpec& spec, const std::string& path) {
  const v1::ThrottleSpec& throttle = spec.throttle();
  struct Named {
    const char* name;
    const v1::ThrottleSpec::Limit& limit;
  };
  for (const Named& one :
       {Named{"read_bytes", throttle.read_bytes()}, Named{"write_bytes", throttle.write_bytes()},
        Named{"total_bytes", throttle.total_bytes()}, Named{"read_ops", throttle.read_ops()},
        Named{"write_ops", throttle.write_ops()}, Named{"total_ops", throttle.total_ops()}}) {
    if (one.limit.burst_per_second() == 0 || one.limit.average_per_second() != 0) continue;
    return Invalid(absl::StrCat(path, ".throttle.", one.name, ".burst_per_second"),
                   "A burst needs an average_per_second.");
  }
  return absl::OkStatus();
}

engine::FilterOptions Align(const FilterSpec& spec) {
  filters::AlignOptions options;
  options.alignment = spec.align().alignment_bytes();
  options.max_transfer = spec.align().max_transfer_bytes();
  return options;
}

filters::OperationSet OperationsOf(const v1::FaultSpec::Rule& rule) {
  if (rule.operations().empty()) return filters::kAllOperations;
  filters::OperationSet set = 0;
  for (const int operation : rule.operations()) {
    if (operation == v1::FILTER_OPERATION_READ) set |= Bit(filters::Operation::kRead);
    if (operation == v1::FILTER_OPERATION_WRITE) set |= Bit(filters::Operation::kWrite);
    if (operation == v1::FILTER_OPERATION_WRITE_ZEROES) set |= Bit(filters::Operation::kZero);
    if (operation == v1::FILTER_OPERATION_TRIM) set |= Bit(filters::Operation::kDiscard);
    if (operation == v1::FILTER_OPERATION_FLUSH) set |= Bit(filters::Operation::kFlush);
    if (operation == v1::FILTER_OPERATION_CACHE) set |= Bit(filters::Operation::kCache);
    if (operation == v1::FILTER_OPERATION_BLOCK_STATUS) {
      set |= Bit(filters::Operation::kBlockStatus);
    }
  }
  return set;
}

// The code that the NBD server answers with that error (nbd/protocol/errors.cc).
absl::StatusCode CodeOf(v1::FaultSpec::Error error) {
  switch (error) {
    case v1::FaultSpec::ERROR_EPERM:
      return absl::StatusCode::kPermissionDenied;
    case v1::FaultSpec::ERROR_ENOSPC:
      return absl::StatusCode::kResourceExhausted;
    case v1::FaultSpec::ERROR_EINVAL:
      return absl::StatusCode::kInvalidArgument;
    case v1::FaultSpec::ERROR_ENOTSUP:
      return absl::StatusCode::kUnimplemented;
    case v1::FaultSpec::ERROR_ESHUTDOWN:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

engine::FilterOptions Fault(const FilterSpec& spec) {
  filters::FaultOptions options;
  for (const v1::FaultSpec::Rule& rule : spec.fault().rules()) {
    filters::FaultRule& made = options.rules.emplace_back();
    made.operations = OperationsOf(rule);
    made.range = RangeOf(rule, kEnd - rule.offset_bytes());
    made.error = CodeOf(rule.error());
    made.probability = rule.probability() == 0 ? 1 : rule.probability();
    made.max_hits = rule.max_hits();
    made.skip_hits = rule.skip_hits();
    made.state = rule.state();
    made.new_state = rule.new_state();
    made.pass = rule.pass();
  }
  options.alignment = spec.fault().alignment_bytes();
  options.max_transfer = spec.fault().max_transfer_bytes();
  options.max_zero = spec.fault().max_write_zeroes_bytes();
  options.max_discard = spec.fault().max_trim_bytes();
  options.seed = spec.fault().seed();
  return options;
}

absl::Status CheckFault(const FilterSpec& spec, const std::string& path) {
  for (int i = 0; i < spec.fault().rules_size(); ++i) {
    const v1::FaultSpec::Rule& rule = spec.fault().rules(i);
    const std::string at = absl::StrCat(path, ".fault.rules[", i, "]");
    RETURN_IF_ERROR(CheckRange(rule, at));
    const double share = rule.probability();
    if (!std::isfinite(share) || share < 0 || share > 1) {
      return Invalid(absl::StrCat(at, ".probability"), "A probability is from 0 to 1.");
    }
    for (int j = 0; j < rule.operations_size(); ++j) {
      if (rule.operations(j) != v1::FILTER_OPERATION_UNSPECIFIED) continue;
      return Invalid(absl::StrCat(at, ".operations[", j, "]"), "It names no kind of requests.");
    }
  }
  return absl::OkStatus();
}

engine::FilterOptions Delay(const FilterSpec& spec) {
  const v1::DelaySpec& delay = spec.delay();
  filters::DelayOptions options;
  options.read = FromProto(delay.read());
  options.write = FromProto(delay.write());
  options.zero = FromProto(delay.write_zeroes());
  options.discard = FromProto(delay.trim());
  options.flush = FromProto(delay.flush());
  options.block_status = FromProto(delay.block_status());
  options.jitter = FromProto(delay.jitter());
  return options;
}

engine::FilterOptions ReadOnly(const FilterSpec& /*spec*/) { return filters::ReadOnlyOptions(); }

engine::FilterOptions WriteProtect(const FilterSpec& spec) {
  filters::WriteProtectOptions options;
  for (const v1::WriteProtectSpec::Range& range : spec.write_protect().ranges()) {
    options.ranges.push_back(RangeOf(range, kEnd - range.offset_bytes()));
  }
  options.inverted = spec.write_protect().inverted();
  return options;
}

absl::Status CheckWriteProtect(const FilterSpec& spec, const std::string& path) {
  for (int i = 0; i < spec.write_protect().ranges_size(); ++i) {
    RETURN_IF_ERROR(CheckRange(spec.write_protect().ranges(i),
                               absl::StrCat(path, ".write_protect.ranges[", i, "]")));
  }
  return absl::OkStatus();
}

engine::FilterOptions Slice(const FilterSpec& spec) {
  filters::SliceOptions options;
  options.partition = spec.slice().partition();
  options.range = RangeOf(spec.slice().range(), 0);
  return options;
}

absl::Status CheckSlice(const FilterSpec& spec, const std::string& path) {
  return CheckRange(spec.slice().range(), absl::StrCat(path, ".slice.range"));
}

engine::FilterOptions Resize(const FilterSpec& spec) {
  const v1::ResizeSpec& resize = spec.resize();
  filters::ResizeOptions options;
  switch (resize.size_case()) {
    case v1::ResizeSpec::kRoundUpBytes:
      options.mode = filters::ResizeOptions::Mode::kRoundUp;
      options.bytes = resize.round_up_bytes();
      break;
    case v1::ResizeSpec::kRoundDownBytes:
      options.mode = filters::ResizeOptions::Mode::kRoundDown;
      options.bytes = resize.round_down_bytes();
      break;
    default:
      options.bytes = resize.size_bytes();
      break;
  }
  return options;
}

engine::FilterOptions Readahead(const FilterSpec& spec) {
  filters::ReadaheadOptions options;
  const uint32_t window = spec.readahead().max_window_bytes();
  if (window != 0) options.max_window = window;
  return options;
}

engine::FilterOptions Retry(const FilterSpec& spec) {
  const v1::RetrySpec& retry = spec.retry();
  filters::RetryOptions options;
  if (retry.max_retries() != 0) options.max_retries = retry.max_retries();
  if (retry.has_initial_backoff()) options.initial_backoff = FromProto(retry.initial_backoff());
  if (retry.has_max_backoff()) {
    options.max_backoff = FromProto(retry.max_backoff());
    options.initial_backoff = std::min(options.initial_backoff, options.max_backoff);
  } else {
    options.max_backoff = std::max(options.initial_backoff, options.max_backoff);
  }
  options.retry_no_space = retry.retry_no_space();
  return options;
}

absl::Status CheckRetry(const FilterSpec& spec, const std::string& path) {
  const v1::RetrySpec& retry = spec.retry();
  const bool both = retry.has_initial_backoff() && retry.has_max_backoff();
  if (!both || FromProto(retry.initial_backoff()) <= FromProto(retry.max_backoff())) {
    return absl::OkStatus();
  }
  return Invalid(absl::StrCat(path, ".retry.max_backoff"), "It is less than initial_backoff.");
}

engine::FilterOptions Log(const FilterSpec& spec) {
  filters::LogOptions options;
  if (spec.log().sample_one_in() != 0) options.sample_one_in = spec.log().sample_one_in();
  options.slower_than = FromProto(spec.log().slower_than());
  options.failures_only = spec.log().failures_only();
  return options;
}

engine::FilterOptions Luks(const FilterSpec& spec) {
  return filters::LuksOptions{spec.luks().key_file(), spec.luks().allow_discards()};
}

absl::Status CheckLuks(const FilterSpec& spec, const std::string& path) {
  if (spec.luks().key_file().find('/') == std::string::npos) return absl::OkStatus();
  return Invalid(absl::StrCat(path, ".luks.key_file"),
                 "It is the name of a file in the directory of secrets, without a slash.");
}

template <typename Spec>
uint64_t MemoryOf(const Spec& spec, uint64_t otherwise) {
  const uint64_t most = spec.memory().max_bytes();
  return most == 0 ? otherwise : most;
}

absl::StatusOr<engine::FilterOptions> Cow(const FilterSpec& spec, const FilterPlace& place) {
  const v1::CowSpec& cow = spec.cow();
  engine::CowEntry entry;
  if (cow.has_image()) {
    ASSIGN_OR_RETURN(entry.image, place.find_image(cow.image().image(),
                                                   absl::StrCat(place.path, ".cow.image.image")));
    return entry;
  }
  if (cow.block_size_bytes() != 0) entry.options.block_size = cow.block_size_bytes();
  entry.in_file = cow.has_file();
  entry.max_memory = MemoryOf(cow, entry.max_memory);
  return entry;
}

absl::Status CheckCow(const FilterSpec& spec, const std::string& path) {
  if (!spec.cow().has_image() || spec.cow().block_size_bytes() == 0) return absl::OkStatus();
  return Invalid(absl::StrCat(path, ".cow.block_size_bytes"),
                 "An image keeps changes in its own clusters.");
}

engine::FilterOptions Cache(const FilterSpec& spec) {
  const v1::CacheSpec& cache = spec.cache();
  engine::CacheEntry entry;
  filters::CacheOptions& options = entry.options;
  if (cache.mode() == v1::CacheSpec::MODE_WRITEBACK) {
    options.mode = filters::CacheOptions::Mode::kWriteback;
  }
  if (cache.block_size_bytes() != 0) options.block_size = cache.block_size_bytes();
  if (cache.size_bytes() != 0) options.size = cache.size_bytes();
  options.cache_on_read = !cache.no_cache_on_read();
  const uint32_t high = cache.dirty_high_percent();
  const uint32_t low = cache.dirty_low_percent();
  options.dirty_high_percent = high != 0 ? high : std::max(options.dirty_high_percent, low);
  options.dirty_low_percent =
      low != 0 ? low
               : std::min(options.dirty_low_percent, high == 0 ? options.dirty_low_percent : high);
  entry.in_file = cache.has_file();
  return entry;
}

absl::Status CheckCache(const FilterSpec& spec, const std::string& path) {
  const auto entry = std::get<engine::CacheEntry>(Cache(spec));
  if (entry.options.size < entry.options.block_size) {
    return Invalid(absl::StrCat(path, ".cache.size_bytes"), "It is less than one block.");
  }
  if (MemoryOf(spec.cache(), entry.options.size) >= entry.options.size) return absl::OkStatus();
  return Invalid(absl::StrCat(path, ".cache.memory.max_bytes"), "It is less than the cache holds.");
}

absl::StatusOr<engine::FilterOptions> CopyOnRead(const FilterSpec& spec, const FilterPlace& place) {
  const v1::CopyOnReadSpec& copy = spec.copy_on_read();
  filters::CopyOnReadOptions options;
  if (copy.granularity_bytes() != 0) options.granularity = copy.granularity_bytes();
  if (copy.bottom_image().empty()) return options;
  ASSIGN_OR_RETURN(const engine::ImageSpec image, place.find_image(place.source, "export.source"));
  const auto found = std::find_if(
      image.backing.begin(), image.backing.end(),
      [&](const engine::ImageSpec& below) { return below.name == copy.bottom_image(); });
  if (found == image.backing.end()) {
    return Invalid(absl::StrCat(place.path, ".copy_on_read.bottom_image"),
                   absl::StrCat(copy.bottom_image(), " is not below ", place.source, "."));
  }
  options.bottom_layer = static_cast<uint32_t>(found - image.backing.begin()) + 2;
  return options;
}

absl::StatusOr<engine::FilterOptions> Verify(const FilterSpec& spec, const FilterPlace& place) {
  const v1::VerifySpec& verify = spec.verify();
  engine::VerifyEntry entry;
  const bool in_tree = verify.has_hash_tree();
  const std::string field =
      absl::StrCat(place.path, in_tree ? ".verify.hash_tree.image" : ".verify.reference_image");
  ASSIGN_OR_RETURN(entry.reference, place.find_image(ImageNamedBy(spec).name, field));
  if (in_tree) {
    const v1::HashTree& tree = verify.hash_tree();
    entry.tree = {.digest = absl::HexStringToBytes(tree.root_digest()), .size = tree.size_bytes()};
  }
  if (verify.on_mismatch() == v1::VerifySpec::ON_MISMATCH_REPORT) {
    entry.options.on_mismatch = filters::VerifyOptions::OnMismatch::kReport;
  }
  return entry;
}

absl::Status CheckVerify(const FilterSpec& spec, const std::string& path) {
  const v1::VerifySpec& verify = spec.verify();
  if (verify.has_hash_tree() == !verify.reference_image().empty()) {
    return Invalid(absl::StrCat(path, ".verify"),
                   "It is compared either with a reference_image or with a hash_tree.");
  }
  if (!verify.has_hash_tree()) return absl::OkStatus();
  const std::string& digest = verify.hash_tree().root_digest();
  const bool is_hex =
      std::all_of(digest.begin(), digest.end(), [](char c) { return absl::ascii_isxdigit(c); });
  if (is_hex && (digest.size() == 64 || digest.size() == 128)) return absl::OkStatus();
  return Invalid(absl::StrCat(path, ".verify.hash_tree.root_digest"),
                 "It must have 64 or 128 hexadecimal digits.");
}

engine::FilterOptions Stats(const FilterSpec& /*spec*/) { return filters::StatsOptions(); }

engine::FilterOptions FeatureMask(const FilterSpec& spec) {
  const v1::FeatureMaskSpec& mask = spec.feature_mask();
  filters::FeatureMaskOptions options;
  options.hide_trim = mask.hide_trim();
  options.hide_zero = mask.hide_write_zeroes();
  options.hide_fast_zero = mask.hide_fast_zero();
  options.hide_fua = mask.hide_fua();
  options.hide_holes = mask.hide_holes();
  options.hide_multi_conn = mask.hide_multi_conn();
  options.hide_cache = mask.hide_cache();
  return options;
}

// kind, shares state, injects faults, options, check, resolve
constexpr FilterKind kKinds[] = {
    {FilterSpec::kThrottle, true, false, Throttle, CheckThrottle},
    {FilterSpec::kAlign, false, false, Align, nullptr},
    {FilterSpec::kCopyOnRead, false, false, nullptr, nullptr, CopyOnRead},
    {FilterSpec::kFault, true, true, Fault, CheckFault},
    {FilterSpec::kDelay, false, false, Delay, nullptr},
    {FilterSpec::kReadOnly, false, false, ReadOnly, nullptr},
    {FilterSpec::kWriteProtect, false, false, WriteProtect, CheckWriteProtect},
    {FilterSpec::kSlice, false, false, Slice, CheckSlice},
    {FilterSpec::kResize, false, false, Resize, nullptr},
    {FilterSpec::kCow, false, false, nullptr, CheckCow, Cow},
    {FilterSpec::kCache, false, false, Cache, CheckCache},
    {FilterSpec::kReadahead, false, false, Readahead, nullptr},
    {FilterSpec::kRetry, false, false, Retry, CheckRetry},
    {FilterSpec::kLuks, false, false, Luks, CheckLuks},
    {FilterSpec::kVerify, false, false, nullptr, CheckVerify, Verify},
    {FilterSpec::kLog, false, false, Log, nullptr},
    {FilterSpec::kStats, false, false, Stats, nullptr},
    {FilterSpec::kFeatureMask, false, false, FeatureMask, nullptr},
};

}  // namespace

std::span<const FilterKind> FilterKinds() { return kKinds; }

const FilterKind* FindFilterKind(const FilterSpec& spec) {
  const auto* const found =
      std::find_if(std::begin(kKinds), std::end(kKinds),
                   [&](const FilterKind& kind) { return kind.kind == spec.kind_case(); });
  return found == std::end(kKinds) ? nullptr : found;
}

std::string FilterKindName(const FilterSpec& spec) {
  const auto* const field = FilterSpec::descriptor()->FindFieldByNumber(spec.kind_case());
  return field == nullptr ? std::string() : field->name();
}

NamedImage ImageNamedBy(const FilterSpec& spec) {
  if (spec.verify().has_hash_tree()) return {spec.verify().hash_tree().image(), false};
  if (spec.has_verify()) return {spec.verify().reference_image(), true};
  if (spec.has_cow()) return {spec.cow().image().image(), true};
  return {};
}

absl::StatusOr<engine::FilterOptions> ResolveFilter(const FilterSpec& spec,
                                                    const FilterPlace& place) {
  const FilterKind& kind = *FindFilterKind(spec);
  if (kind.resolve != nullptr) return kind.resolve(spec, place);
  return kind.options(spec);
}

absl::Status CheckFilterSpec(const FilterSpec& spec, const std::string& path, bool allow_faults) {
  const FilterKind* const kind = FindFilterKind(spec);
  if (kind == nullptr) {
    constexpr std::string_view kMessage = "The filter has no kind, or one that is not known here.";
    return Error(reason::kFilterKindUnknown, kMessage).Field(path + ".kind", kMessage);
  }
  if (kind->injects_faults && !allow_faults) {
    const std::string message = absl::StrCat("Filters of the kind ", FilterKindName(spec),
                                             " need a daemon that runs with allow-fault-filters.");
    return Error(reason::kFilterKindDisabled, message)
        .Field(absl::StrCat(path, ".", FilterKindName(spec)), message)
        .Precondition(FilterKindName(spec), message);
  }
  return kind->check == nullptr ? absl::OkStatus() : kind->check(spec, path);
}

}  // namespace gabion::service
