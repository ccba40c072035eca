#include "tests/sim/qcow2_format.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/check.h"
#include "engine/formats/qcow2/create.h"
#include "engine/formats/qcow2/qcow2_node.h"

namespace gabion::sim {
namespace {

// A large disk has many clusters; small ones would only make the metadata long.
constexpr uint64_t kLargeDisk = 64 * kMiB;

qcow2::CreateOptions CreateOptionsOf(const ImageSpec& spec) {
  test::RandomSource random(spec.variant);
  qcow2::CreateOptions options;
  options.size = spec.size;
  options.extended_l2 = random.OneIn(4);
  options.version = options.extended_l2 || !random.OneIn(5) ? 3 : 2;
  const bool large = spec.size > kLargeDisk;
  options.cluster_bits = options.extended_l2 ? random.Between(14, 18)
                         : random.OneIn(3)   ? 16
                         : large             ? random.Between(14, 17)
                                             : random.Between(9, 17);
  if (options.version == 3 && random.OneIn(2)) options.refcount_order = random.Between(0, 6);
  options.lazy_refcounts = options.version == 3 && random.OneIn(6);
  options.preallocate_metadata =
      spec.may_preallocate && !spec.backing_size && !large && random.OneIn(8);
  if (spec.backing_size) {
    options.backing_file = "below";
    options.backing_format = "raw";
  }
  return options;
}

absl::Status Verdict(const qcow2::CheckResult& result, uint64_t file_size, bool leaks_allowed) {
  const bool leaks = result.leaks > 0 && !leaks_allowed;
  if (result.corruptions == 0 && result.check_errors == 0 && !leaks) return absl::OkStatus();
  std::string text = absl::StrCat(result.corruptions, " corruptions, ", result.leaks, " leaks, ",
                                  result.check_errors, " errors in ", file_size, " bytes");
  std::size_t said = 0;
  for (const qcow2::Finding& finding : result.findings) {
    if (leaks_allowed && finding.kind == qcow2::FindingKind::kLeak) continue;
    if (++said > 5) break;
    absl::StrAppend(&text, "; ", finding.text);
  }
  return absl::DataLossError(text);
}

class Qcow2 final : public SimFormat {
 public:
  std::string_view name() const override { return "qcow2"; }
  bool can_have_backing() const override { return true; }

  SimFileOptions FileOptions(const ImageSpec& spec) const override {
    SimFileOptions options;
    options.can_punch = (spec.variant >> 32) % 4 != 0;
    options.can_keep_allocated = (spec.variant >> 34) % 2 != 0;
    options.can_map = (spec.variant >> 35) % 4 != 0;
    return options;
  }

  Task<absl::Status> Create(std::unique_ptr<io::File> file, const ImageSpec& spec) const override {
    const qcow2::CreateOptions options = CreateOptionsOf(spec);
    CO_ASSIGN_OR_RETURN(const qcow2::NewImageLayout layout, qcow2::NewImageLayout::Plan(options));
    std::vector<std::byte> metadata(layout.metadata_bytes());
    layout.Fill(0, metadata);
    CO_RETURN_IF_ERROR(co_await file->Resize({layout.file_bytes()}));
    CO_RETURN_IF_ERROR(co_await file->Write({0}, metadata, false));
    CO_RETURN_IF_ERROR(co_await file->Sync());
    const absl::Status status = co_await file->Close();
    co_return status;
  }

  Task<absl::StatusOr<OpenImage>> Open(std::unique_ptr<io::File> file, block::Node* backing,
                                       const ImageSpec& spec,
                                       runtime::ReadyQueue& ready) const override {
    test::RandomSource random(spec.variant);
    qcow2::Qcow2Options options;
    options.name = "image";
    options.backing = backing;
    if (random.OneIn(2)) options.cache_bytes = ByteCount{random.Below(16 * kKiB)};
    CO_ASSIGN_OR_RETURN(std::unique_ptr<qcow2::Qcow2Node> node,
                        co_await qcow2::OpenQcow2(std::move(file), std::move(options), ready));
    const absl::Status writable = co_await node->BeginWriting();
    if (!writable.ok()) {
      const absl::Status closed = co_await node->Close();
      closed.IgnoreError();
      co_return writable;
    }
    OpenImage image;
    image.Add(std::move(node));
    co_return absl::StatusOr<OpenImage>(std::move(image));
  }

  Task<absl::Status> Check(std::unique_ptr<io::File> file, const ImageSpec&,
                           bool leaks_allowed) const override {
    absl::Status status = co_await CheckOpen(*file, leaks_allowed);
    const absl::Status closed = co_await file->Close();
    status.Update(closed);
    co_return status;
  }

 private:
  static Task<absl::Status> CheckOpen(io::File& file, bool leaks_allowed) {
    CO_ASSIGN_OR_RETURN(const qcow2::ParsedHeader parsed,
                        co_await qcow2::ReadHeader(file, qcow2::Access::kRead));
    // Refcounts that are rebuilt when the image is opened may be anything until then.
    if (parsed.header.dirty()) co_return absl::OkStatus();
    const qcow2::CheckOptions options;
    CO_ASSIGN_OR_RETURN(const qcow2::CheckResult result,
                        co_await qcow2::CheckImage(file, parsed.header, options, nullptr));
    co_return Verdict(result, file.size().value, leaks_allowed);
  }
};

}  // namespace

const SimFormat& Qcow2Format() {
  static const Qcow2 format;
  return format;
}

}  // namespace gabion::sim
