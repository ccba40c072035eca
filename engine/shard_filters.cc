// The filters of a shard's exports, and how others than clients look at these.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/shard_server.h"

namespace gabion::engine {
namespace {

constexpr std::size_t kMostNamed = 16;  // connections in an error

absl::Status NotQuiet(const ExportSpec& spec) {
  const std::string timeout = absl::StrCat(spec.quiesce_timeout.count(), " ms");
  return WithReason(
      absl::AbortedError(absl::StrCat(spec.name, ": requests were still in flight after ", timeout,
                                      "; the filters are as before")),
      {"QUIESCE_TIMEOUT", {{"export", spec.name}, {"timeout", timeout}}});
}

absl::Status Incompatible(const std::string& name, const char* what,
                          const std::vector<uint64_t>& connections) {
  std::vector<std::string> named;
  for (const uint64_t id : connections) {
    if (named.size() == kMostNamed) break;
    named.push_back(absl::StrCat(name, "/connections/", id));
  }
  const std::string list = absl::StrJoin(named, ", ");
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          name, ": clients are connected that would be served ", what,
          " by the new filters: ", list, connections.size() > named.size() ? ", ..." : "")),
      {"STACK_INCOMPATIBLE_WITH_CONNECTIONS", {{"export", name}, {"connections", list}}});
}

}  // namespace

Task<absl::StatusOr<std::unique_ptr<FilterStack>>> ShardServer::BuildStack(
    const ExportSpec& spec, Image& image, uint64_t incarnation, const Pools& pools,
    const FilterStack* before) {
  StackSurroundings surroundings{shard_.reactor().ready(),
                                 shard_.reactor().clock(),
                                 logger_,
                                 *options_.filter_states,
                                 spec.name,
                                 incarnation,
                                 keys_.has_value() ? &*keys_ : nullptr,
                                 this,
                                 pools.at(spec.image.pool),
                                 &pools,
                                 spec.read_only};
  absl::StatusOr<std::unique_ptr<FilterStack>> stack =
      co_await FilterStack::Build(std::move(surroundings), image.root(), spec.filters, before);
  if (stack.ok()) (*stack)->Refresh();  // the image may have grown meanwhile
  co_return stack;
}

// What a client has been told stays true: the size, whether it can write, the granule of its
// replies, and the bytes themselves.
absl::Status ShardServer::CheckFits(const Served& served, const ExportSpec& spec,
                                    FilterStack& next) const {
  const std::string& name = spec.name;
  ASSIGN_OR_RETURN(const std::unique_ptr<nbd::ExportVersion> trial,
                   MakeExportVersion(spec, next.top(), 0, shard_.reactor().ready()));
  const auto refuse = [&](const char* what, auto is_unfit) -> absl::Status {
    const std::vector<uint64_t> unfit = served.exported.SessionsOf(is_unfit);
    return unfit.empty() ? absl::OkStatus() : Incompatible(name, what, unfit);
  };
  const auto any = [](bool unfit) { return [unfit](const nbd::ExportVersion&) { return unfit; }; };
  RETURN_IF_ERROR(
      refuse("another size", any(next.top().limits().size != served.top.limits().size)));
  RETURN_IF_ERROR(refuse("other bytes", any(!next.ShowsSameBytes(*served.stack))));
  RETURN_IF_ERROR(refuse("another writability", [&](const nbd::ExportVersion& version) {
    return version.disk_writable != trial->disk_writable;
  }));
  return refuse("a larger minimum block size", [&](const nbd::ExportVersion& version) {
    return version.effective.minimum.bytes < trial->effective.minimum.bytes;
  });
}

Task<absl::Status> ShardServer::ExchangeStack(Served& served, std::unique_ptr<FilterStack> next) {
  absl::Status status;
  bool quiet = false;
  bool again = true;
  const bool same_disk =
      next->top().limits().size == served.top.limits().size && next->ShowsSameBytes(*served.stack);
  const auto change = [&] {
    // Writes that were under way when the caches began to write through.
    again = served.stack->HoldsUnwritten();
    if (again) return;
    next->Refresh();  // the image may have grown
    status = CheckFits(served, served.spec, *next);
    if (!status.ok()) return;
    served.top.Switch(next->top());
    status = PublishVersion(served);
    if (!status.ok()) {
      served.top.Switch(served.stack->top());
      return;
    }
    const nbd::ExportVersion& now = served.exported.current();
    served.exported.ForgetVersions([&](const nbd::ExportVersion& version) {
      return !same_disk || version.disk_writable != now.disk_writable ||
             version.effective.minimum.bytes < now.effective.minimum.bytes;
    });
    served.exported.RefreshVersions();
    next->TakeOver(*served.stack);
    std::swap(next, served.stack);
  };
  while (again) {
    again = false;
    status = co_await served.stack->WriteBack();
    if (!status.ok()) break;
    quiet = co_await served.exported.WhileQuiet(served.spec.quiesce_timeout, change);
    if (!quiet) status = NotQuiet(served.spec);
  }
  next->Hurry();  // the one that is not in use
  co_await next->Settle();
  co_return status;
}

Task<absl::Status> ShardServer::PublishChange(Served& served, const ExportSpec& before,
                                              const Pools& pools) {
  if (served.stack->CanConfigure(served.spec.filters) &&
      served.stack->CanConfigureFor(before.read_only != served.spec.read_only)) {
    CO_RETURN_IF_ERROR(PublishVersion(served));
    if (before.filters != served.spec.filters) served.stack->Configure(served.spec.filters);
    co_return absl::OkStatus();
  }
  CO_ASSIGN_OR_RETURN(std::unique_ptr<FilterStack> next,
                      co_await BuildStack(served.spec, *served.image, served.incarnation, pools,
                                          served.stack.get()));
  absl::Status fits = co_await MakeRoom(*next, served.spec.name);
  if (fits.ok()) fits = CheckFits(served, served.spec, *next);  // before anybody has to wait
  if (!fits.ok()) {
    next->Hurry();
    co_await next->Settle();
    co_return fits;
  }
  co_return co_await ExchangeStack(served, std::move(next));
}

Task<absl::StatusOr<std::vector<FilterStatistics>>> ShardServer::GetFilterStatistics(
    std::string name) {
  CO_ASSIGN_OR_RETURN(const Served* const served, Find(name));
  co_return served->stack->GetStatistics();
}

absl::StatusOr<ShardServer::Seen> ShardServer::See(const std::string& name) {
  ASSIGN_OR_RETURN(const Served* const served, Find(name));
  const nbd::ExportVersion& version = served->exported.current();
  Seen seen;
  seen.incarnation = served->incarnation;
  seen.size = version.effective.export_size;
  seen.content_size = std::min(seen.size, version.root->limits().content_size());
  seen.granule = version.effective.minimum.bytes;
  seen.writable = !version.info.traits.read_only;
  return seen;
}

Task<absl::Status> ShardServer::LookAt(const std::string& name, uint64_t incarnation, Look& look) {
  CO_ASSIGN_OR_RETURN(Served* const served, Find(name));
  if (served->incarnation != incarnation || served->looking.held()) {
    co_return WithReason(absl::NotFoundError(absl::StrCat(name, " is not served any more")),
                         {"RESOURCE_NOT_FOUND", {{"resource", name}}});
  }
  const runtime::Turnstile::Pass stays = co_await served->looking.Enter();
  const runtime::Turnstile::Pass pass = co_await served->exported.gate().Enter();
  nbd::ExportVersion* const version = served->exported.Pin();
  absl::Status status = co_await look.Do(*version, *served->stack, *served->image);
  served->exported.Unpin(version);
  co_return status;
}

}  // namespace gabion::engine
