#include "engine/formats/qcow2/disk.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/formats/qcow2/check.h"
#include "engine/formats/qcow2/header_extensions.h"

namespace gabion::qcow2 {
namespace {

constexpr block::RangeLockMode kExclusive = block::RangeLockMode::kExclusive;
constexpr std::size_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kMuchMetadata = 4 * kMiB;  // changed tables, in bytes
constexpr std::size_t kManyReferences = 65536;   // that wait to be given up
constexpr uint64_t kLeastPreferred = 4 * kKiB;
constexpr uint64_t kMostPreferred = 2 * kMiB;

block::Limits LimitsOf(const io::File& file, const Header& header, const Qcow2Options& options) {
  const Geometry geometry(header);
  block::Limits limits;
  limits.size = ByteCount{header.size};
  limits.preferred.value = std::clamp(geometry.subcluster_size(), kLeastPreferred, kMostPreferred);
  limits.preferred_from = options.name;
  limits.layers = options.backing == nullptr ? 1 : options.backing->limits().layers + 1;
  limits.writable = file.writable() && !header.corrupt();
  limits.fast_zero = header.version >= 3 || options.backing == nullptr;
  return limits;
}

CacheBudget& BudgetOf(const Qcow2Options& options, CacheBudget& own) {
  return options.cache_budget == nullptr ? own : *options.cache_budget;
}

}  // namespace

Disk::Disk(std::unique_ptr<io::File> file, Header header, Qcow2Options options,
           runtime::ReadyQueue& ready)
    : Qcow2Node(LimitsOf(*file, header, options)),
      options_(std::move(options)),
      file_(std::move(file)),
      tables_(*file_, ready, std::move(header), options_.name, options_.cache_bytes,
              BudgetOf(options_, own_budget_)),
      commit_lock_(ready),
      epochs_(ready),
      allocator_(tables_, commit_lock_),
      reclaimer_(tables_, allocator_, epochs_),
      mapper_(tables_, allocator_, reclaimer_),
      commit_(tables_, reclaimer_, commit_lock_),
      inflater_(tables_, options_.workers),
      changing_(ready),
      staging_(ready, kStagingBudget, kPage),
      beginning_(ready) {
  CHECK_EQ(file_->alignment(), 1u);
}

absl::Status Disk::CheckWritable() const {
  if (!tables_.unwritable.ok()) return tables_.unwritable;
  if (may_write_) return absl::OkStatus();
  return absl::FailedPreconditionError("the image has not been opened for writing");
}

Task<absl::Status> Disk::BeginWriting() {
  const block::RangeLock::Guard guard = co_await beginning_.Acquire(Range(0, 1), kExclusive);
  if (may_write_) co_return absl::OkStatus();
  if (!file_->writable()) co_return absl::PermissionDeniedError("the image's file is read-only");
  const absl::StatusOr<ParsedHeader> strict = co_await ReadHeader(*file_, Access::kReadWrite);
  if (!strict.ok()) co_return strict.status();
  if (tables_.header.dirty()) {
    const CheckOptions options{.ready = &tables_.ready};
    CO_RETURN_IF_ERROR(co_await RebuildRefcounts(*file_, tables_.header, options, nullptr));
    tables_.warnings.push_back("the image was not closed; its refcounts were rebuilt");
  }
  CO_RETURN_IF_ERROR(co_await tables_.Load(Access::kReadWrite));
  CO_RETURN_IF_ERROR(co_await CheckRefcountsOfTables());
  if (tables_.header.autoclear != 0) {
    tables_.header.autoclear = 0;
    CO_RETURN_IF_ERROR(co_await tables_.WriteHeader());
  }
  may_write_ = true;
  co_return absl::OkStatus();
}

// Refcounts of another width than the header says, or none at all, show here.
Task<absl::Status> Disk::CheckRefcountsOfTables() {
  const Geometry& geometry = tables_.geometry;
  for (const auto& [cluster, kind] : tables_.metadata) {
    const bool is_looked_at =
        kind == Metadata::kHeader || kind == Metadata::kL1 || kind == Metadata::kRefcountTable;
    if (!is_looked_at) continue;
    CO_ASSIGN_OR_RETURN(const uint64_t count, co_await allocator_.Refcount(cluster));
    if (count == 1) continue;
    co_return absl::FailedPreconditionError(
        absl::StrCat("the refcount of the cluster at ", cluster << geometry.cluster_bits,
                     ", which holds ", AsAbsl(NameOf(kind)), ", is ", count, " and must be 1"));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Disk::Found(const absl::Status& status) {
  if (!IsDamage(status)) co_return status;
  const std::string what(status.message());
  co_return co_await tables_.MarkCorrupt(what);
}

Task<absl::Status> Disk::CommitIfMuch() {
  const bool much = commit_.dirty_bytes() > kMuchMetadata || reclaimer_.waiting() > kManyReferences;
  if (!much) return absl::OkStatus();
  return commit_.Sync();
}

Task<absl::Status> Disk::AfterChange(absl::Status status, bool durable) {
  if (!status.ok()) return status;
  return durable ? commit_.Sync() : CommitIfMuch();
}

Task<absl::Status> Disk::DoFlush() {
  if (!may_write_) return absl::OkStatus();
  return commit_.Sync();
}

// Reclaiming leaves refcounts to be written; writing them leaves nothing.
Task<absl::Status> Disk::EndWriting() {
  const block::RangeLock::Guard guard = co_await beginning_.Acquire(Range(0, 1), kExclusive);
  if (!may_write_) co_return absl::OkStatus();
  may_write_ = false;
  absl::Status status = co_await commit_.Sync();
  co_await reclaimer_.Drain();
  if (status.ok() && commit_.IsDirty()) status = co_await commit_.Sync();
  co_await reclaimer_.Drain();
  co_return status;
}

Task<absl::Status> Disk::DoClose() {
  const absl::Status ended = co_await EndWriting();
  const absl::Status closed = co_await file_->Close();
  co_return ended.ok() ? closed : ended;
}

Task<absl::StatusOr<ParsedHeader>> ReadHeader(io::File& file, Access access) {
  std::vector<std::byte> start(std::min<uint64_t>(file.size().value, kMinHeaderLengthV3));
  const MutableBytes first(start);
  CO_RETURN_IF_ERROR(co_await file.Read(ByteOffset{0}, first));
  CO_ASSIGN_OR_RETURN(const std::size_t wanted, HeaderBytesWanted(start));
  std::vector<std::byte> bytes(std::min<uint64_t>(wanted, file.size().value));
  const MutableBytes all(bytes);
  CO_RETURN_IF_ERROR(co_await file.Read(ByteOffset{0}, all));
  co_return ParseHeader(bytes, file.size(), access);
}

Task<absl::StatusOr<std::unique_ptr<Qcow2Node>>> OpenQcow2(std::unique_ptr<io::File> file,
                                                           Qcow2Options options,
                                                           runtime::ReadyQueue& ready) {
  absl::StatusOr<ParsedHeader> parsed = co_await ReadHeader(*file, Access::kRead);
  absl::Status status = parsed.status();
  if (status.ok() && parsed->header.data_file.has_value()) {
    status = absl::UnimplementedError("external data files are not supported");
  }
  if (status.ok() && parsed->header.backing_file.has_value() != (options.backing != nullptr)) {
    status = absl::FailedPreconditionError(options.backing == nullptr
                                               ? absl::StrCat("the image needs its backing image, ",
                                                              Quoted(*parsed->header.backing_file))
                                               : "the image has no backing file");
  }
  if (!status.ok()) {
    const absl::Status closed = co_await file->Close();
    status.Update(closed);
    co_return status;
  }
  auto disk =
      std::make_unique<Disk>(std::move(file), std::move(parsed->header), std::move(options), ready);
  status = co_await disk->Load();
  if (!status.ok()) {
    const absl::Status closed = co_await disk->Close();
    status.Update(closed);
    co_return status;
  }
  std::unique_ptr<Qcow2Node> node = std::move(disk);
  co_return node;
}

}  // namespace gabion::qcow2
