#include "engine/nbd/server/export.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace gabion::nbd {
namespace {

// How requests of one connection are treated: the policy's switches, for a client that did or did
// not ask for sizes.
SessionPolicy PolicyOf(const ExportVersion& version, const Negotiated& negotiated) {
  using Unaligned = block::UnalignedRequests;
  using Silent = block::SilentClients;
  const uint32_t minimum = version.info.block_sizes.minimum;
  SessionPolicy policy;
  policy.granule = minimum;
  if (version.effective.unaligned_requests == Unaligned::kReject ||
      version.effective.unaligned_requests == Unaligned::kDisconnect) {
    const bool bound =
        negotiated.block_sizes_requested || version.effective.silent_clients == Silent::kEnforce;
    policy.required_alignment = bound ? minimum : std::min<uint32_t>(minimum, 512);
    policy.disconnect_violators = version.effective.unaligned_requests == Unaligned::kDisconnect;
    policy.violation_budget = version.effective.violation_budget;
  }
  return policy;
}

bool IsUsed(const ExportVersion& version) { return version.sessions + version.looks > 0; }

}  // namespace

Export::Export(const SessionEnvironment& environment, const SessionLimits& limits)
    : environment_(environment),
      limits_(limits),
      gate_(environment.reactor.ready()),
      serving_(environment.reactor.ready()) {}

Export::~Export() { CHECK(sessions_.empty()); }

void Export::Publish(std::unique_ptr<ExportVersion> version) {
  versions_.push_back(std::move(version));
  DropUnusedVersions();
}

void Export::DropUnusedVersions() {
  // A client may have been told a version that is replaced before its connection arrives here.
  constexpr std::size_t kKept = 8;
  const std::size_t droppable = versions_.size() > kKept ? versions_.size() - kKept : 0;
  const auto end = versions_.begin() + static_cast<std::ptrdiff_t>(droppable);
  const auto unused = std::remove_if(
      versions_.begin(), end,
      [](const std::unique_ptr<ExportVersion>& version) { return !IsUsed(*version); });
  versions_.erase(unused, end);
}

ExportVersion* Export::FindVersion(uint64_t id) {
  for (const auto& version : versions_) {
    if (version->id == id) return version.get();
  }
  return nullptr;
}

void Export::RefreshVersions() {
  for (const auto& version : versions_) {
    if (version->tail != nullptr) version->tail->Refresh();
  }
}

Task<bool> Export::WhileQuiet(runtime::Duration timeout, absl::FunctionRef<void()> change) {
  runtime::Clock& clock = environment_.reactor.clock();
  gate_.Hold();
  const bool quiet = co_await gate_.DrainUntil(clock, clock.Now() + timeout);
  if (quiet) change();
  gate_.Resume();
  co_return quiet;
}

std::vector<uint64_t> Export::SessionsOf(
    absl::FunctionRef<bool(const ExportVersion&)> is_unfit) const {
  std::vector<uint64_t> ids;
  for (const auto& entry : sessions_) {
    if (is_unfit(*entry->version)) ids.push_back(entry->id);
  }
  return ids;
}

void Export::ForgetVersions(absl::FunctionRef<bool(const ExportVersion&)> is_unfit) {
  const ExportVersion* const newest = versions_.back().get();
  std::erase_if(versions_, [&](const std::unique_ptr<ExportVersion>& version) {
    if (version.get() == newest || !is_unfit(*version)) return false;
    CHECK(!IsUsed(*version));
    return true;
  });
}

void Export::Unpin(ExportVersion* version) {
  --version->looks;
  DropUnusedVersions();
}

Task<void> Export::MakeReadOnly() {
  for (const auto& entry : sessions_) entry->session->SetReadOnly();
  gate_.Hold();
  co_await gate_.Drain();
  gate_.Resume();
}

absl::Status Export::Admit(uint64_t version_id, uint64_t connection_id, int64_t connect_time_us,
                           Negotiated negotiated, std::string leftover,
                           std::unique_ptr<io::Stream> stream) {
  ExportVersion* const version = FindVersion(version_id);
  if (closing_ || version == nullptr) {
    stream->Shutdown();
    return absl::AbortedError("the export changed while the client negotiated");
  }
  auto entry = std::make_unique<Entry>();
  entry->id = connection_id;
  entry->connect_time_us = connect_time_us;
  entry->version = version;
  const SessionPolicy policy = PolicyOf(*version, negotiated);
  entry->session = std::make_unique<Session>(environment_, limits_, policy, std::move(negotiated),
                                             *version->root, gate_, std::move(stream));
  if (current().info.traits.read_only) entry->session->SetReadOnly();
  ++version->sessions;
  Entry* raw = entry.get();
  sessions_.push_back(std::move(entry));
  if (observer_ != nullptr) observer_->OnConnectionBegun(ReportOf(*raw));
  serving_.Add(Serve(raw, std::move(leftover)));
  return absl::OkStatus();
}

Task<void> Export::Serve(Entry* entry, std::string leftover) {
  co_await entry->session->Run(std::move(leftover));
  const uint64_t id = entry->id;
  environment_.logger.Log(LogLevel::kInfo, "nbd",
                          absl::StrCat(entry->session->peer(), ": connection ", id, " to '",
                                       entry->version->info.name, "' ended"));
  --entry->version->sessions;
  std::erase_if(sessions_, [entry](const std::unique_ptr<Entry>& candidate) {
    return candidate.get() == entry;
  });
  DropUnusedVersions();
  if (observer_ != nullptr) observer_->OnConnectionEnded(id);
}

SessionReport Export::ReportOf(const Entry& entry) {
  return {entry.id, entry.session.get(), entry.connect_time_us, entry.version->generation};
}

std::vector<SessionReport> Export::Sessions() const {
  std::vector<SessionReport> reports;
  reports.reserve(sessions_.size());
  for (const auto& entry : sessions_) reports.push_back(ReportOf(*entry));
  return reports;
}

bool Export::CloseSession(uint64_t connection_id) {
  for (const auto& entry : sessions_) {
    if (entry->id != connection_id) continue;
    entry->session->Close();
    return true;
  }
  return false;
}

void Export::BeginClose() {
  closing_ = true;
  for (const auto& entry : sessions_) entry->session->Close();
}

Task<void> Export::Shutdown() {
  closing_ = true;
  for (const auto& entry : sessions_) entry->session->BeginShutdown();
  co_await serving_.Drain();
}

Task<void> Export::Close() {
  BeginClose();
  co_await serving_.Drain();
}

}  // namespace gabion::nbd
