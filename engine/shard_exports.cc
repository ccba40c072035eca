// The exports of a shard.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/export_use.h"
#include "engine/shard_server.h"

namespace gabion::engine {
namespace {

absl::Status NoSuchExport(const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat(name, " is not served")),
                    {"RESOURCE_NOT_FOUND", {{"resource", name}}});
}

ExportSink::Entry EntryOf(const ExportSpec& spec, const nbd::ExportVersion& version) {
  ExportSink::Entry entry;
  entry.version_id = version.id;
  entry.info = version.info;
  entry.enabled = spec.enabled;
  entry.transport = spec.transport;
  entry.max_connections = spec.max_connections;
  return entry;
}

ConnectionState ConnectionStateOf(const nbd::SessionReport& report) {
  const nbd::Negotiated& negotiated = report.session->negotiated();
  const nbd::BlockSizes& sizes = negotiated.exported.block_sizes;
  ConnectionState state;
  state.id = report.id;
  state.peer = report.session->peer();
  state.connect_time_us = report.connect_time_us;
  state.requested_block_sizes = negotiated.block_sizes_requested;
  state.structured_replies = negotiated.structured;
  state.spec_generation = report.generation;
  state.unaligned_requests = report.session->stats().unaligned_requests;
  state.rejected_requests = report.session->stats().rejected_requests;
  state.minimum_bytes = sizes.minimum;
  state.preferred_bytes = sizes.preferred;
  state.maximum_payload_bytes = sizes.maximum_payload;
  return state;
}

}  // namespace

void ShardServer::Served::OnConnectionBegun(const nbd::SessionReport& report) {
  const engine::Observer* const observer = server.observer_;
  if (observer != nullptr && observer->connected) {
    observer->connected(spec.name, ConnectionStateOf(report));
  }
}

void ShardServer::Served::OnConnectionEnded(uint64_t id) {
  const engine::Observer* const observer = server.observer_;
  if (observer != nullptr && observer->disconnected) observer->disconnected(spec.name, id);
  server.sink_.ConnectionEnded(spec.name, id);
}

absl::StatusOr<ShardServer::Served*> ShardServer::Find(const std::string& name) {
  const auto found = exports_.find(name);
  if (found == exports_.end()) return NoSuchExport(name);
  return found->second.get();
}

ExportState ShardServer::StateOf(const nbd::ExportVersion& version) const {
  ExportState state;
  state.effective = version.effective;
  state.generation = version.generation;
  return state;
}

ExportState ShardServer::StateOf(const Served& served) const {
  return StateOf(served, served.exported.current());
}

ExportState ShardServer::StateOf(const Served& served, const nbd::ExportVersion& version) const {
  ExportState state = StateOf(version);
  state.connection_count = static_cast<uint32_t>(served.exported.sessions());
  for (const nbd::SessionReport& report : served.exported.Sessions()) {
    const nbd::ExportInfo& told = report.session->negotiated().exported;
    state.sizes_propagated &= told.block_sizes == version.info.block_sizes &&
                              told.traits.size == version.info.traits.size;
    state.read_only_propagated &= told.traits.read_only == version.info.traits.read_only;
  }
  return state;
}

absl::Status ShardServer::PublishVersion(Served& served) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<nbd::ExportVersion> version,
      MakeExportVersion(served.spec, served.top, next_version_++, shard_.reactor().ready()));
  if (version->effective.lost.value > 0) {
    logger_.Log(LogLevel::kWarning, "engine",
                absl::StrCat(served.spec.name, ": the last ", version->effective.lost.value,
                             " bytes of ", served.spec.image.name,
                             " are out of reach, because the export is truncated to a multiple of ",
                             version->effective.minimum.bytes, " bytes"));
  }
  served.exported.Publish(std::move(version));
  sink_.Publish(served.spec.name, EntryOf(served.spec, served.exported.current()));
  return absl::OkStatus();
}

Task<absl::StatusOr<ExportState>> ShardServer::CreateExport(ExportSpec spec, const Pools& pools) {
  CHECK(!exports_.contains(spec.name));  // home lets each name through once
  const ImageUse use = UseOfImage(spec);
  const absl::StatusOr<Image*> acquired =
      co_await AcquireImage(spec.image, pools.at(spec.image.pool), use);
  if (!acquired.ok()) co_return BlameFilter(acquired.status(), spec);
  Image* const image = *acquired;
  auto served = std::make_unique<Served>(*this, *image, next_version_++);
  served->spec = std::move(spec);
  served->use = use;
  absl::StatusOr<std::unique_ptr<FilterStack>> stack =
      co_await BuildStack(served->spec, *image, served->incarnation, pools, nullptr);
  absl::Status published = stack.status();
  if (published.ok()) {
    served->stack = *std::move(stack);
    published = co_await MakeRoom(*served->stack, served->spec.name);
    served->top.Switch(served->stack->top());
    if (published.ok()) published = PublishVersion(*served);
    if (!published.ok()) co_await served->stack->Settle();
  }
  if (!published.ok()) {
    served.reset();
    co_await ReleaseImage(image, use);
    co_return published;
  }
  const ExportState state = StateOf(*served);
  const std::string name = served->spec.name;
  exports_.emplace(name, std::move(served));
  co_return state;
}

Task<absl::StatusOr<ExportState>> ShardServer::UpdateExport(ExportSpec spec, const Pools& pools) {
  CO_ASSIGN_OR_RETURN(Served* const served, Find(spec.name));
  const ImageUse before = served->use;
  const ImageUse after = UseOfImage(spec);
  // More than both need, while the one becomes the other.
  const ImageUse meanwhile = BothUses(before, after);
  const absl::Status allowed = co_await ChangeUse(served->image, before, meanwhile);
  if (!allowed.ok()) co_return BlameFilter(allowed, spec);
  served->use = meanwhile;
  const absl::Status changed = co_await ChangeServed(*served, std::move(spec), pools);
  const ImageUse settled = changed.ok() ? after : before;
  const absl::Status less = co_await ChangeUse(served->image, meanwhile, settled);
  CHECK(less.ok());
  served->use = settled;
  if (!changed.ok()) co_return changed;
  co_return StateOf(*served);
}

Task<absl::Status> ShardServer::ChangeServed(Served& served, ExportSpec spec, const Pools& pools) {
  const bool ends_writing = spec.read_only && !served.spec.read_only;
  if (ends_writing && served.stack->HasCaches()) {
    const absl::Status written = co_await served.stack->WriteBack();
    if (!written.ok()) {
      served.stack->ResumeCaches();
      co_return written;
    }
  }
  const ExportSpec before = std::exchange(served.spec, std::move(spec));
  const absl::Status published = co_await PublishChange(served, before, pools);
  if (!published.ok()) {
    served.spec = before;
    served.stack->ResumeCaches();
    co_return published;
  }
  if (!ends_writing) {
    co_await served.stack->LowerUses(served.spec.read_only);
    co_return absl::OkStatus();
  }
  co_await served.exported.MakeReadOnly();
  // What came between the two; nothing is called done that is not in the image.
  const absl::Status written = co_await served.stack->WriteBack();
  if (!written.ok()) {
    logger_.Log(LogLevel::kError, "engine",
                absl::StrCat(served.spec.name, ": writing a cache back: ", written.message()));
  }
  served.stack->ResumeCaches();
  co_await served.stack->LowerUses(true);
  co_return absl::OkStatus();
}

// An export that is served keeps its own use of the image meanwhile.
Task<absl::StatusOr<ImageUse>> ShardServer::AcquireForCheck(const ExportSpec& spec,
                                                            const Served* served,
                                                            const Pools& pools, Image*& image) {
  const ImageUse wanted = UseOfImage(spec);
  ImageUse use = wanted;
  if (served != nullptr) {
    const absl::Status allowed = served->image->CheckUse(served->use, wanted);
    if (!allowed.ok()) co_return BlameFilter(allowed, spec);
    use = NeedsWriter(wanted) ? ImageUse::kResize : ImageUse::kRead;
  }
  const absl::StatusOr<Image*> acquired =
      co_await AcquireImage(spec.image, pools.at(spec.image.pool), use);
  if (!acquired.ok()) co_return BlameFilter(acquired.status(), spec);
  image = *acquired;
  co_return use;
}

absl::StatusOr<ExportState> ShardServer::CheckVersion(const ExportSpec& spec, const Served* served,
                                                      FilterStack& stack) {
  ASSIGN_OR_RETURN(const std::unique_ptr<nbd::ExportVersion> version,
                   MakeExportVersion(spec, stack.top(), 0, shard_.reactor().ready()));
  if (served != nullptr && !served->stack->CanConfigure(spec.filters)) {
    RETURN_IF_ERROR(CheckFits(*served, spec, stack));
  }
  return served != nullptr ? StateOf(*served, *version) : StateOf(*version);
}

Task<absl::StatusOr<ExportState>> ShardServer::CheckExport(ExportSpec spec, const Pools& pools) {
  const auto found = exports_.find(spec.name);
  const bool same_image =
      found != exports_.end() && found->second->spec.image.name == spec.image.name;
  const Served* const served = same_image ? found->second.get() : nullptr;
  Image* image = nullptr;
  CO_ASSIGN_OR_RETURN(const ImageUse use, co_await AcquireForCheck(spec, served, pools, image));
  absl::StatusOr<ExportState> state = absl::UnknownError("");
  {
    // What is shared is looked at and not changed; anything else is made for this and goes again.
    absl::StatusOr<std::unique_ptr<FilterStack>> stack = co_await BuildStack(
        spec, *image, 0, pools, served == nullptr ? nullptr : served->stack.get());
    if (stack.ok()) {
      state = CheckVersion(spec, served, **stack);
      co_await (*stack)->Settle();
    } else {
      state = stack.status();
    }
  }
  co_await ReleaseImage(image, use);
  co_return state;
}

Task<absl::Status> ShardServer::DeleteExport(std::string name, DeleteMode mode) {
  CO_ASSIGN_OR_RETURN(Served* const served, Find(name));
  if (mode == DeleteMode::kSafe && served->exported.sessions() > 0) {
    co_return WithReason(
        absl::FailedPreconditionError(absl::StrCat(name, " has ", served->exported.sessions(),
                                                   " connections; close them first")),
        {"EXPORT_HAS_CONNECTIONS", {{"export", name}}});
  }
  Image* const image = served->image;
  served->stack->Hurry();
  if (mode == DeleteMode::kShutdown) {
    co_await served->exported.Shutdown();
  } else {
    co_await served->exported.Close();
  }
  served->looking.Hold();
  co_await served->looking.Drain();
  co_await served->stack->Settle();  // caches write back
  if (mode == DeleteMode::kShutdown) {
    const absl::Status flushed = co_await image->root().Flush();
    if (!flushed.ok()) {  // as bad as it is, the export is gone; clients were not told it is safe
      logger_.Log(LogLevel::kError, "engine",
                  absl::StrCat(name, ": flushing after the last client: ", flushed.message()));
    }
  }
  const ImageUse use = served->use;
  exports_.erase(name);
  co_await ReleaseImage(image, use);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<ExportState>> ShardServer::GetExport(std::string name) {
  CO_ASSIGN_OR_RETURN(const Served* const served, Find(name));
  co_return StateOf(*served);
}

Task<std::vector<absl::StatusOr<ExportState>>> ShardServer::GetExports(
    std::vector<std::string> names) {
  std::vector<absl::StatusOr<ExportState>> states;
  states.reserve(names.size());
  for (const std::string& name : names) {
    const absl::StatusOr<Served*> served = Find(name);
    if (served.ok()) {
      states.push_back(StateOf(**served));
    } else {
      states.push_back(served.status());
    }
  }
  co_return states;
}

Task<absl::StatusOr<std::vector<ConnectionState>>> ShardServer::ListConnections(std::string name) {
  CO_ASSIGN_OR_RETURN(const Served* const served, Find(name));
  std::vector<ConnectionState> connections;
  for (const nbd::SessionReport& report : served->exported.Sessions()) {
    connections.push_back(ConnectionStateOf(report));
  }
  co_return connections;
}

Task<absl::Status> ShardServer::CloseConnection(std::string name, uint64_t id) {
  CO_ASSIGN_OR_RETURN(Served* const served, Find(name));
  if (served->exported.CloseSession(id)) co_return absl::OkStatus();
  co_return WithReason(
      absl::NotFoundError(absl::StrCat(name, " has no connection ", id)),
      {"RESOURCE_NOT_FOUND", {{"resource", absl::StrCat(name, "/connections/", id)}}});
}

void ShardServer::Admit(const std::string& export_name, Arrival arrival,
                        std::unique_ptr<io::Stream> stream) {
  const std::string peer = stream->peer();
  const auto found = exports_.find(export_name);
  absl::Status admitted = absl::NotFoundError("the export is gone");
  if (found == exports_.end()) {
    stream->Shutdown();
  } else {
    admitted =
        found->second->exported.Admit(arrival.version_id, arrival.connection_id,
                                      arrival.connect_time_us, std::move(arrival.result.negotiated),
                                      std::move(arrival.result.leftover), std::move(stream));
  }
  if (admitted.ok()) return;
  logger_.Log(LogLevel::kInfo, "nbd", absl::StrCat(peer, ": hung up: ", admitted.message()));
  sink_.ConnectionEnded(export_name, arrival.connection_id);
}

void ShardServer::OnImageGrown(Image& image) {
  for (auto& [name, served] : exports_) {
    if (served->looking.held()) continue;  // it is going away, and its stack lets go of images
    if (served->image != &image && !served->stack->Needs(image)) continue;
    ShowGrowth(*served);
    if (served->stack->KeepsScratch()) tasks_.Add(GrowScratch(name, served->incarnation));
  }
}

void ShardServer::ShowGrowth(Served& served) {
  served.stack->Refresh();
  served.top.Refresh();
  served.exported.RefreshVersions();
  const absl::Status published = PublishVersion(served);
  if (published.ok()) return;
  logger_.Log(LogLevel::kWarning, "engine",
              absl::StrCat(served.spec.name,
                           ": the image has grown, but new clients still see the old size: ",
                           published.message()));
}

// Before the stack is in use. What an image keeps already is shown, if it cannot grow, as far as it
// goes.
Task<absl::Status> ShardServer::MakeRoom(FilterStack& stack, const std::string& name) {
  if (!stack.KeepsScratch()) co_return absl::OkStatus();
  const absl::Status grown = co_await stack.GrowScratch();
  if (grown.ok() || !stack.HasKeptChanges()) co_return grown;
  logger_.Log(LogLevel::kWarning, "engine",
              absl::StrCat(name, ": an image that keeps changes does not grow with the disk: ",
                           grown.message()));
  co_return absl::OkStatus();
}

// The stack stays as it is meanwhile, as for a look.
Task<void> ShardServer::GrowScratch(std::string name, uint64_t incarnation) {
  const auto found = exports_.find(name);
  if (found == exports_.end()) co_return;
  Served& served = *found->second;
  if (served.incarnation != incarnation || served.looking.held()) co_return;
  const runtime::Turnstile::Pass stays = co_await served.looking.Enter();
  const runtime::Turnstile::Pass pass = co_await served.exported.gate().Enter();
  const absl::Status grown = co_await served.stack->GrowScratch();
  if (!grown.ok()) {
    logger_.Log(LogLevel::kWarning, "engine",
                absl::StrCat(name, ": the scratch space of a filter does not grow with the image: ",
                             grown.message()));
  }
  ShowGrowth(served);
}

}  // namespace gabion::engine
