#include "service/domain/observer.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/domain/await.h"
#include "service/domain/connection_view.h"
#include "service/domain/identity.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::string_view kExportRows = "exports";
constexpr std::size_t kPage = 256;  // rows that are read or written at once

Mutation PutConnection(const std::string& export_name, const engine::ConnectionState& state) {
  const v1::Connection connection = DescribeConnection(export_name, state);
  return Put(kConnections, connection.name(), connection.SerializeAsString());
}

}  // namespace

ConnectionObserver::ConnectionObserver(engine::Engine& engine, MetadataStore& store, Logger& logger,
                                       ObserverOptions options)
    : engine_(engine),
      store_(store),
      logger_(logger),
      options_(options),
      inbox_(std::make_shared<ConnectionInbox>(options.max_events)) {}

ConnectionObserver::~ConnectionObserver() { Stop(); }

absl::Status ConnectionObserver::Start() {
  RETURN_IF_ERROR(RemoveLeftovers());
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void ConnectionObserver::Stop() {
  inbox_->Close();
  if (thread_.joinable()) thread_.join();
}

absl::Status ConnectionObserver::RemoveLeftovers() {
  for (;;) {
    ASSIGN_OR_RETURN(const Page page, store_.List(kConnections, "", kPage));
    if (page.rows.empty()) return absl::OkStatus();
    std::vector<Mutation> steps;
    for (const Row& row : page.rows) steps.push_back(Remove(kConnections, row.name));
    RETURN_IF_ERROR(Commit(std::move(steps)));
  }
}

void ConnectionObserver::Loop() {
  bool resync = false;
  for (;;) {
    const ConnectionInbox::Batch batch =
        resync ? inbox_->TakeAfter(options_.retry) : inbox_->Take(options_.gather);
    if (batch.closed) return;
    // What the engine lists from here on includes every event so far.
    resync = resync || batch.overflowed;
    const absl::Status written = resync ? Resync() : Write(batch.events);
    resync = !written.ok();
    if (!written.ok()) {
      logger_.Log(LogLevel::kWarning, "observer",
                  absl::StrCat("Connections could not be recorded and will be again: ",
                               written.ToString()));
    }
  }
}

absl::Status ConnectionObserver::Write(const std::vector<ConnectionEvent>& events) {
  std::vector<Mutation> steps;
  std::set<std::string> present = rows_;
  for (const ConnectionEvent& event : events) {
    if (event.state.has_value()) {
      steps.push_back(PutConnection(event.export_name, *event.state));
      present.insert(steps.back().name);
      continue;
    }
    std::string name = FormatConnectionName({event.export_name, event.id});
    // After a resync the end of a connection can come that was not listed any more.
    if (present.erase(name) > 0) steps.push_back(Remove(kConnections, name));
  }
  return Commit(std::move(steps));
}

absl::Status ConnectionObserver::Resync() {
  std::vector<Mutation> steps;
  std::set<std::string> listed;
  ASSIGN_OR_RETURN(const std::set<std::string> exports, Exports());
  for (const std::string& name : exports) {
    const auto states = Await<absl::StatusOr<std::vector<engine::ConnectionState>>>(
        [&](auto done) { engine_.ListConnections(name, std::move(done)); });
    if (absl::IsNotFound(states.status())) continue;  // not served
    if (!states.ok()) return states.status();
    for (const engine::ConnectionState& state : *states) {
      Mutation put = PutConnection(name, state);
      listed.insert(put.name);
      if (!rows_.contains(put.name)) steps.push_back(std::move(put));
    }
  }
  for (const std::string& name : rows_) {
    if (!listed.contains(name)) steps.push_back(Remove(kConnections, name));
  }
  return Commit(std::move(steps));
}

absl::StatusOr<std::set<std::string>> ConnectionObserver::Exports() const {
  std::set<std::string> names;
  for (const std::string& row : rows_) names.emplace(ParentOf(row));
  std::string after;
  for (bool more = true; more;) {
    ASSIGN_OR_RETURN(const Page page, store_.List(kExportRows, after, kPage));
    for (const Row& row : page.rows) names.insert(row.name);
    more = page.more;
    if (more) after = page.rows.back().name;
  }
  return names;
}

absl::Status ConnectionObserver::Commit(std::vector<Mutation> steps) {
  for (std::size_t from = 0; from < steps.size(); from += kPage) {
    const auto first = steps.begin() + static_cast<std::ptrdiff_t>(from);
    const auto last = first + static_cast<std::ptrdiff_t>(std::min(kPage, steps.size() - from));
    std::vector<Mutation> part(std::make_move_iterator(first), std::make_move_iterator(last));
    std::set<std::string> exports;
    for (const Mutation& step : part) exports.emplace(ParentOf(step.name));
    for (const std::string& name : exports) part.push_back(Touch(kExportRows, name));
    RETURN_IF_ERROR(store_.Commit(part).status());
    for (const Mutation& step : part) {
      if (step.kind == Mutation::Kind::kPut) rows_.insert(step.name);
      if (step.kind == Mutation::Kind::kDelete) rows_.erase(step.name);
    }
    if (!options_.changed) continue;
    for (const std::string& name : exports) options_.changed(name);
  }
  return absl::OkStatus();
}

}  // namespace gabion::service
