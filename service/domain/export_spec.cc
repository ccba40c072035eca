#include "service/domain/export_spec.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

block::UnalignedRequests FromProto(v1::BlockSizePolicy::UnalignedRequests value) {
  switch (value) {
    case v1::BlockSizePolicy::UNALIGNED_REQUESTS_EMULATE:
      return block::UnalignedRequests::kEmulate;
    case v1::BlockSizePolicy::UNALIGNED_REQUESTS_REJECT:
      return block::UnalignedRequests::kReject;
    case v1::BlockSizePolicy::UNALIGNED_REQUESTS_DISCONNECT:
      return block::UnalignedRequests::kDisconnect;
    default:
      return block::UnalignedRequests::kUnspecified;
  }
}

block::SilentClients FromProto(v1::BlockSizePolicy::SilentClients value) {
  switch (value) {
    case v1::BlockSizePolicy::SILENT_CLIENTS_ASSUME_512:
      return block::SilentClients::kAssume512;
    case v1::BlockSizePolicy::SILENT_CLIENTS_ENFORCE:
      return block::SilentClients::kEnforce;
    case v1::BlockSizePolicy::SILENT_CLIENTS_REFUSE:
      return block::SilentClients::kRefuse;
    default:
      return block::SilentClients::kUnspecified;
  }
}

block::TailPolicy FromProto(v1::BlockSizePolicy::Tail value) {
  switch (value) {
    case v1::BlockSizePolicy::TAIL_EXACT:
      return block::TailPolicy::kExact;
    case v1::BlockSizePolicy::TAIL_PAD_ZERO:
      return block::TailPolicy::kPadZero;
    case v1::BlockSizePolicy::TAIL_PAD_GROW:
      return block::TailPolicy::kPadGrow;
    case v1::BlockSizePolicy::TAIL_TRUNCATE:
      return block::TailPolicy::kTruncate;
    case v1::BlockSizePolicy::TAIL_REFUSE:
      return block::TailPolicy::kRefuse;
    default:
      return block::TailPolicy::kUnspecified;
  }
}

engine::Transport FromProto(v1::Access::Transport value) {
  switch (value) {
    case v1::Access::TRANSPORT_PLAINTEXT_UNIX:
      return engine::Transport::kPlaintextUnix;
    case v1::Access::TRANSPORT_PLAINTEXT_TCP:
      return engine::Transport::kPlaintextTcp;
    default:
      return engine::Transport::kDefault;
  }
}

v1::EffectiveBlockSizes::Origin ToProto(block::SizeOrigin origin) {
  switch (origin) {
    case block::SizeOrigin::kPolicy:
      return v1::EffectiveBlockSizes::ORIGIN_POLICY;
    case block::SizeOrigin::kStorage:
      return v1::EffectiveBlockSizes::ORIGIN_STORAGE;
    case block::SizeOrigin::kFilter:
      return v1::EffectiveBlockSizes::ORIGIN_FILTER;
    case block::SizeOrigin::kDefault:
      return v1::EffectiveBlockSizes::ORIGIN_DEFAULT;
  }
  return v1::EffectiveBlockSizes::ORIGIN_UNSPECIFIED;
}

void Tell(const block::EffectiveSize& size, const std::string& export_name,
          v1::EffectiveBlockSizes::Value* value) {
  value->set_bytes(size.bytes);
  value->set_origin(ToProto(size.origin));
  value->set_determined_by(size.origin == block::SizeOrigin::kPolicy ? export_name
                                                                     : size.determined_by);
}

}  // namespace

engine::ExportSpec SpecOf(const v1::Export& exported, const engine::ImageSpec& image) {
  engine::ExportSpec spec;
  spec.name = exported.name();
  spec.nbd_name = exported.nbd_name();
  spec.description = exported.description();
  spec.image = image;
  spec.read_only = exported.read_only();
  spec.allocation_depth = exported.expose_allocation_depth();
  spec.enabled = exported.enabled();
  const v1::BlockSizePolicy& policy = exported.block_sizes();
  spec.block_sizes.minimum = policy.minimum_bytes();
  spec.block_sizes.preferred = policy.preferred_bytes();
  spec.block_sizes.maximum_payload = policy.maximum_payload_bytes();
  spec.block_sizes.unaligned_requests = FromProto(policy.unaligned_requests());
  spec.block_sizes.violation_budget = policy.violation_budget();
  spec.block_sizes.silent_clients = FromProto(policy.silent_clients());
  spec.block_sizes.tail = FromProto(policy.tail());
  spec.transport = FromProto(exported.access().transport());
  spec.max_connections = exported.access().max_connections();
  spec.generation = exported.generation();
  return spec;
}

absl::Status CheckIsBuilt(const v1::Export& exported) {
  if (exported.access().transport() != v1::Access::TRANSPORT_TLS_REQUIRED) return absl::OkStatus();
  constexpr std::string_view kMessage = "TRANSPORT_TLS_REQUIRED is not part of this version.";
  return Error(reason::kFeatureNotBuilt, kMessage).Field("export.access.transport", kMessage);
}

v1::EffectiveBlockSizes Tell(const block::EffectiveBlockSizes& sizes,
                             const std::string& export_name, uint64_t generation) {
  v1::EffectiveBlockSizes told;
  Tell(sizes.minimum, export_name, told.mutable_minimum());
  Tell(sizes.preferred, export_name, told.mutable_preferred());
  Tell(sizes.maximum_payload, export_name, told.mutable_maximum_payload());
  told.set_export_size_bytes(sizes.export_size.value);
  told.set_truncated_bytes(sizes.lost.value);
  told.set_generation(generation);
  return told;
}

std::string PercentEncode(std::string_view text, std::string_view also_kept) {
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool kept = absl::ascii_isalnum(byte) ||
                      std::string_view("-._~").find(c) != std::string_view::npos ||
                      also_kept.find(c) != std::string_view::npos;
    if (kept) {
      encoded += c;
    } else {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      encoded += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return encoded;
}

std::vector<std::string> UrisOf(const v1::Export& exported, const engine::EngineInfo& engine) {
  const std::string name = PercentEncode(exported.nbd_name(), "");
  std::vector<std::string> uris;
  if (!engine.nbd_unix_path.empty()) {
    uris.push_back(
        absl::StrCat("nbd+unix:///", name, "?socket=", PercentEncode(engine.nbd_unix_path, "/")));
  }
  if (!engine.nbd_tcp_address.empty() &&
      exported.access().transport() == v1::Access::TRANSPORT_PLAINTEXT_TCP) {
    uris.push_back(absl::StrCat("nbd://", engine.nbd_tcp_address, "/", name));
  }
  return uris;
}

}  // namespace gabion::service
