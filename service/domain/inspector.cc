#include "service/domain/inspector.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/domain/filter_attachments.h"
#include "service/domain/records.h"
#include "service/errors.h"
#include "service/filter_registry.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::size_t kExtentsPerPage = 1024;  // of the engine, and of an answer
constexpr int kPagesPerStep = 16;
constexpr std::string_view kStartField = "starting_offset";

bool IsExport(const std::string& name) { return IsNameOf("gabion/Export", name); }

EngineCall AboutRange(const std::string& name, std::string offset_field) {
  EngineCall call;
  (IsExport(name) ? call.export_name : call.image) = name;
  call.offset_field = std::move(offset_field);
  return call;
}

absl::Status BeyondEnd(std::string_view field, uint64_t offset, uint64_t length, uint64_t size) {
  const std::string message = absl::StrCat("The range of ", length, " bytes at ", offset,
                                           " goes beyond the end at ", size, ".");
  return Error(reason::kOffsetBeyondEnd, message)
      .Metadata("size", absl::StrCat(size))
      .Field(field, message);
}

absl::Status CheckRange(uint64_t offset, uint64_t length, const engine::Target& target) {
  const uint64_t size = target.size().value;
  if (offset > size || length > size - offset) return BeyondEnd("offset", offset, length, size);
  return absl::OkStatus();
}

// The bytes that a Write or Verify speaks of: `data`, or `pattern` repeated to `length`.
template <typename Request>
absl::StatusOr<std::vector<std::byte>> Content(const Request& request) {
  const bool repeats = request.content_case() == Request::kPattern;
  const std::string& source = repeats ? request.pattern() : request.data();
  if (repeats && request.length() == 0) {
    return Error(reason::kFieldRequired, "A pattern needs a length.")
        .Field("length", "Required with `pattern`.");
  }
  if (!repeats && request.length() != 0 && request.length() != source.size()) {
    const std::string message =
        absl::StrCat("length is ", request.length(), " and data has ", source.size(), " bytes.");
    return Error(reason::kFieldInvalid, message).Field("length", message);
  }
  std::vector<std::byte> bytes(repeats ? request.length() : source.size());
  for (std::size_t at = 0; at < bytes.size(); at += source.size()) {
    std::memcpy(bytes.data() + at, source.data(), std::min(source.size(), bytes.size() - at));
  }
  return bytes;
}

uint64_t RoundDown(uint64_t value, uint64_t unit) { return value - value % unit; }

}  // namespace

MapCursor::MapCursor(MapPlan plan, Inspected opened)
    : plan_(std::move(plan)),
      target_(std::move(opened.target)),
      uid_(std::move(opened.uid)),
      images_(std::move(opened.images)),
      size_(target_->size()),
      results_left_(plan_.max_results == 0 ? ~uint64_t{0} : plan_.max_results),
      at_(plan_.range.offset),
      merger_(plan_.range.offset, plan_.granularity, static_cast<uint32_t>(images_.size())) {}

MapCursor::~MapCursor() = default;

absl::Status MapCursor::Open() {
  ASSIGN_OR_RETURN(Inspected opened, plan_.open());
  if (opened.uid != uid_ || opened.target->size() < size_) {
    return Error(reason::kConcurrentUpdate, "What is mapped was replaced meanwhile: map it again.");
  }
  target_ = std::move(opened.target);
  return absl::OkStatus();
}

// One page of extents from the disk into the merger; at the end of the content, the padding.
absl::Status MapCursor::Fetch() {
  const ByteOffset content_end{std::min(plan_.range.end().value, target_->content_size().value)};
  if (at_ < content_end) {
    const ByteRange rest{at_, content_end - at_};
    ASSIGN_OR_RETURN(const block::ExtentList extents,
                     Await<absl::StatusOr<block::ExtentList>>(
                         [&](auto done) { target_->Map(rest, kExtentsPerPage, std::move(done)); }));
    if (extents.empty()) return absl::InternalError("The map of a disk ended before its end.");
    merger_.Add(extents);
    at_ = extents.back().range.end();
    return absl::OkStatus();
  }
  if (at_ < plan_.range.end()) merger_.AddPadding(plan_.range.end() - at_);
  at_ = plan_.range.end();
  merger_.Finish();
  fetched_all_ = true;
  return absl::OkStatus();
}

void MapCursor::Tell(const engine::MapExtent& run, v1::MapResponse::Extent* extent) const {
  extent->set_offset(run.range.offset.value);
  extent->set_length(run.range.length.value);
  extent->set_data(!run.zero);
  extent->set_zero(run.zero);
  extent->set_allocated(run.allocated);
  extent->set_depth(run.min_depth);
  extent->set_maximum_depth(run.max_depth);
  if (run.layer >= 1 && run.layer <= images_.size()) extent->set_image(images_[run.layer - 1]);
  extent->set_compressed(run.compressed);
  if (run.host_offset != block::kNoHostOffset) extent->set_host_offset(run.host_offset);
}

absl::StatusOr<std::optional<v1::MapResponse>> MapCursor::Next() {
  if (target_ == nullptr) RETURN_IF_ERROR(Open());
  absl::StatusOr<std::optional<v1::MapResponse>> piece = NextOpened();
  target_.reset();
  return piece;
}

absl::StatusOr<std::optional<v1::MapResponse>> MapCursor::NextOpened() {
  v1::MapResponse response;
  response.set_virtual_size_bytes(size_.value);
  response.set_granularity_bytes(plan_.granularity);
  for (int page = 0; page < kPagesPerStep && !ended_; ++page) {
    const auto room = kExtentsPerPage - static_cast<std::size_t>(response.extents_size());
    const auto runs = merger_.Take(std::min<uint64_t>(room, results_left_));
    for (const engine::MapExtent& run : runs) Tell(run, response.add_extents());
    results_left_ -= runs.size();
    if (runs.size() == room) break;
    if (results_left_ == 0 || fetched_all_) {
      ended_ = true;
    } else {
      EngineCall call;
      call.image = images_.front();
      call.offset_field = kStartField;
      RETURN_IF_ERROR(FromEngine(Fetch(), call));
    }
  }
  // An empty range is told by one empty piece.
  if (response.extents_size() == 0 && !(ended_ && !told_something_)) return std::nullopt;
  told_something_ = true;
  return response;
}

absl::StatusOr<Inspected> Inspector::Open(const std::string& name, bool writable) {
  Inspected opened;
  absl::StatusOr<std::unique_ptr<engine::Target>> target;
  if (IsExport(name)) {
    ASSIGN_OR_RETURN(const v1::Export row, exports_.ServedRow(name));
    opened.uid = row.uid();
    opened.images = images_.ChainOf(row.source());
    target = Await<absl::StatusOr<std::unique_ptr<engine::Target>>>(
        [&](auto done) { engine_.OpenExportTarget(name, std::move(done)); });
  } else {
    ASSIGN_OR_RETURN(const engine::ImageSpec spec, images_.ActiveSpec(name));
    opened.uid = spec.uid;
    opened.images = images_.ChainOf(name);
    if (writable) RETURN_IF_ERROR(images_.CheckNotWorkedOn(name));
    if (writable) RETURN_IF_ERROR(images_.CheckNothingStandsOn(name));
    target = Await<absl::StatusOr<std::unique_ptr<engine::Target>>>(
        [&](auto done) { engine_.OpenImageTarget(spec, writable, std::move(done)); });
  }
  EngineCall call;
  (IsExport(name) ? call.export_name : call.image) = name;
  RETURN_IF_ERROR(FromEngine(target.status(), call));
  opened.target = std::move(*target);
  return opened;
}

absl::StatusOr<std::unique_ptr<MapCursor>> Inspector::Map(const v1::MapRequest& request) {
  if (request.as_advertised() && request.granularity_bytes() != 0) {
    constexpr std::string_view kMessage = "Excludes granularity_bytes.";
    return Error(reason::kFieldInvalid, "as_advertised and granularity_bytes exclude each other.")
        .Field("as_advertised", kMessage);
  }
  if (request.as_advertised() && !IsExport(request.name())) {
    constexpr std::string_view kMessage = "Only an export advertises a block size.";
    return Error(reason::kFieldInvalid, kMessage).Field("as_advertised", kMessage);
  }
  ASSIGN_OR_RETURN(Inspected opened, Open(request.name(), /*writable=*/false));
  const uint64_t size = opened.target->size().value;
  const uint64_t offset = request.starting_offset();
  if (offset > size) return BeyondEnd(kStartField, offset, request.length(), size);
  const uint64_t rest = size - offset;
  const uint64_t length = request.length() == 0 ? rest : std::min(request.length(), rest);
  const uint32_t granularity =
      request.as_advertised() ? opened.target->granule() : request.granularity_bytes();
  uint64_t start = offset;
  uint64_t end = offset + length;
  if (granularity != 0) {
    start = RoundDown(start, granularity);
    const uint64_t over = end % granularity;
    if (over != 0) end += std::min<uint64_t>(granularity - over, size - end);
  }
  MapPlan plan;
  plan.open = [this, name = request.name()] { return Open(name, /*writable=*/false); };
  plan.range = Range(start, end - start);
  plan.granularity = granularity;
  plan.max_results = request.max_results();
  return std::make_unique<MapCursor>(std::move(plan), std::move(opened));
}

absl::StatusOr<v1::ReadResponse> Inspector::Read(const v1::ReadRequest& request) {
  ASSIGN_OR_RETURN(const Inspected opened, Open(request.name(), /*writable=*/false));
  RETURN_IF_ERROR(CheckRange(request.offset(), request.length(), *opened.target));
  const auto bytes = Await<absl::StatusOr<std::vector<std::byte>>>([&](auto done) {
    opened.target->Read(Range(request.offset(), request.length()), std::move(done));
  });
  RETURN_IF_ERROR(FromEngine(bytes.status(), AboutRange(request.name(), "offset")));
  v1::ReadResponse response;
  response.mutable_data()->assign(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  return response;
}

absl::StatusOr<ResourceLocks::Guard> Inspector::Lock(const std::string& name, const Call& call) {
  std::vector<std::string> shared = {name};
  if (IsExport(name)) {
    ASSIGN_OR_RETURN(const v1::Export row, exports_.ServedRow(name));
    shared.push_back(row.source());
  }
  return locks_.LockFor(call.patience, {}, shared);
}

absl::StatusOr<v1::WriteResponse> Inspector::Write(const v1::WriteRequest& request,
                                                   const Call& call) {
  ASSIGN_OR_RETURN(std::vector<std::byte> bytes, Content(request));
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock, Lock(request.name(), call));
  ASSIGN_OR_RETURN(const Inspected opened, Open(request.name(), /*writable=*/true));
  RETURN_IF_ERROR(CheckRange(request.offset(), bytes.size(), *opened.target));
  if (!opened.target->writable()) {
    return Error(reason::kExportReadOnly, "The export is read-only.")
        .Metadata("export", request.name())
        .Precondition(request.name(), "Set read_only to false first.");
  }
  const v1::WriteResponse response;
  if (call.validate_only) return response;
  RETURN_IF_ERROR(FromEngine(Await<absl::Status>([&](auto done) {
                               opened.target->Write(ByteOffset{request.offset()}, std::move(bytes),
                                                    std::move(done));
                             }),
                             AboutRange(request.name(), "offset")));
  // Written afterwards: cut off in between, the call is made again, with the same bytes.
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, response, &steps);
  if (!steps.empty()) RETURN_IF_ERROR(store_.Commit(steps).status());
  return response;
}

absl::StatusOr<v1::VerifyResponse> Inspector::Verify(const v1::VerifyRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<std::byte> expected, Content(request));
  ASSIGN_OR_RETURN(const Inspected opened, Open(request.name(), /*writable=*/false));
  RETURN_IF_ERROR(CheckRange(request.offset(), expected.size(), *opened.target));
  const auto actual = Await<absl::StatusOr<std::vector<std::byte>>>([&](auto done) {
    opened.target->Read(Range(request.offset(), expected.size()), std::move(done));
  });
  RETURN_IF_ERROR(FromEngine(actual.status(), AboutRange(request.name(), "offset")));
  v1::VerifyResponse response;
  const auto differs = std::mismatch(expected.begin(), expected.end(), actual->begin());
  response.set_matches(differs.first == expected.end());
  if (!response.matches()) {
    const auto index = static_cast<uint64_t>(differs.first - expected.begin());
    response.set_first_mismatch_offset(request.offset() + index);
    response.set_expected_byte(std::to_integer<uint32_t>(*differs.first));
    response.set_actual_byte(std::to_integer<uint32_t>(*differs.second));
  }
  return response;
}

absl::Status Inspector::TellEntry(const v1::FilterStackEntry& entry,
                                  v1::FilterStatistics* told) const {
  told->set_filter(entry.filter());
  told->set_kind(FilterKindName(entry.spec()));
  if (!entry.has_filter()) return absl::OkStatus();
  const Records<v1::Filter> filters(store_, kFilters, kFilterType);
  ASSIGN_OR_RETURN(const std::optional<Stored<v1::Filter>> stored, filters.Find(entry.filter()));
  if (stored.has_value()) told->set_kind(FilterKindName(stored->resource.spec()));
  return absl::OkStatus();
}

absl::StatusOr<v1::GetFilterStatisticsResponse> Inspector::FilterStatistics(
    const v1::GetFilterStatisticsRequest& request) const {
  using All = std::vector<engine::FilterStatistics>;
  ASSIGN_OR_RETURN(const v1::Export exported, exports_.ServedRow(request.name()));
  const auto counted = Await<absl::StatusOr<All>>(
      [&](auto done) { engine_.GetFilterStatistics(request.name(), std::move(done)); });
  if (!counted.ok()) return FromEngine(counted.status(), AboutRange(request.name(), {}));
  v1::GetFilterStatisticsResponse response;
  for (const engine::FilterStatistics& one : *counted) {
    v1::FilterStatistics& told = *response.add_entries();
    told.set_entry_id(one.entry_id);
    told.set_bypassed(one.bypassed);
    // The stack may be another one than the row's for a moment, while it is changed.
    for (const v1::FilterStackEntry& entry : exported.filter_stack()) {
      if (entry.entry_id() == one.entry_id) RETURN_IF_ERROR(TellEntry(entry, &told));
    }
    for (const filters::Statistics::Counter& counter : one.statistics.counters) {
      told.add_counters()->set_name(counter.name);
      told.mutable_counters()->rbegin()->set_value(counter.value);
    }
    for (const filters::Statistics::Histogram& histogram : one.statistics.histograms) {
      v1::FilterStatistics::Histogram& shown = *told.add_histograms();
      shown.set_name(histogram.name);
      shown.set_sum(histogram.sum);
      for (const filters::Statistics::Bucket& bucket : histogram.buckets) {
        v1::FilterStatistics::Bucket& range = *shown.add_buckets();
        range.set_upper_bound(bucket.bound);
        range.set_count(bucket.count);
      }
    }
  }
  return response;
}

}  // namespace gabion::service
