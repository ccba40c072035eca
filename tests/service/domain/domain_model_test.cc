// Random calls, restarts and deaths against a model: every answer, list, watch and file.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "tests/service/domain/model_fixture.h"

namespace gabion::service {
namespace {

class DomainModelTest : public ModelFixture {
 protected:
  // A call that has succeeded.
  struct Answered {
    PlannedCall call;
    std::string id;
    std::string text;
  };

  void Run(std::chrono::seconds longest, int steps) {
    NewWorld();
    follower_.Begin(*domain_);
    const auto end = std::chrono::steady_clock::now() + longest;
    for (int i = 0; i < steps && std::chrono::steady_clock::now() < end; ++i) {
      SCOPED_TRACE(testing::Message() << "step " << i << ", GABION_SEED=" << test::ProcessSeed());
      Step();
      if (HasFailure()) return;
      ExpectEverythingAgrees();
      if (HasFailure()) return;
    }
  }

 private:
  void Step() {
    const uint64_t choice = random_.Below(16);
    SCOPED_TRACE(testing::Message() << "choice " << choice);
    switch (choice) {
      case 0:
        return Revive(random_.OneIn(2));
      case 1:
        return CutOff();
      case 2:
        return Repeat();
      case 3:
        return Reuse();
      case 4:
      case 5:
        return ConnectOne();
      case 6:
        return LeaveOne();
      case 7:
        return CancelOne();
      case 8:
        return FollowAnew();
      default:
        return CallOne();
    }
  }

  void CallOne() {
    const PlannedCall call = Choose();
    SCOPED_TRACE(call.method + " " + call.body);
    const bool validate_only = random_.OneIn(8);
    const std::string id = random_.OneIn(4) ? "" : NewRequestId();
    const absl::StatusOr<Told> told = call.send(id, validate_only);
    ASSERT_EQ(told.ok() ? "" : ReasonIn(told.status()), call.reason) << told.status();
    if (!told.ok() || validate_only) return;
    Become(call, *told);
    AwaitAgreement();
    ExpectAnswer(call, *told);
    if (!id.empty()) answered_.push_back({call, id, told->text});
  }

  void Become(const PlannedCall& call, const Told& told) {
    const DomainModel before = model_;
    model_ = call.after;
    const auto exported = model_.exports.find(call.about);
    if (exported == model_.exports.end() || !exported->second.draining) return;
    if (!before.exports.at(call.about).draining) exported->second.operation = told.operation;
  }

  // The answer is the resource as it is now, or the operation that has come to it.
  void ExpectAnswer(const PlannedCall& call, const Told& told) {
    std::string now;
    if (model_.images.contains(call.about)) now = GetImage(call.about).DebugString();
    if (model_.exports.contains(call.about)) now = GetExport(call.about).DebugString();
    if (model_.filters.contains(call.about)) now = GetFilter(call.about).DebugString();
    const bool of_stack = call.method.starts_with("Attach") || call.method.starts_with("Detach");
    if (call.method.starts_with("Update") || of_stack || call.method == "CreateExportRequest" ||
        call.method == "CreateFilterRequest") {
      EXPECT_EQ(told.text, now);
    }
    if (told.operation.empty()) return;
    const auto operation = domain_->operations().Get(told.operation);
    ASSERT_TRUE(operation.ok()) << operation.status();
    const auto exported = model_.exports.find(call.about);
    const bool waits = exported != model_.exports.end() && exported->second.draining;
    EXPECT_EQ(operation->done(), !waits);
    EXPECT_FALSE(operation->has_error()) << operation->error().DebugString();
    v1::Image image;
    if (operation->response().UnpackTo(&image)) {
      EXPECT_EQ(image.DebugString(), now);
    }
  }

  // The daemon is restarted, or is killed where it is.
  void Revive(bool killed) {
    follower_.Stop();
    if (!killed) Leave();
    Kill();
    Resurrect();
    BecomeRestarted();
  }
  void BecomeRestarted() {
    model_.Restart();
    AwaitAgreement();
    GoOnFollowing();
  }

  // The daemon dies in the middle of a call, which is repeated until it is answered.
  void CutOff() {
    const PlannedCall call = Choose();
    const bool depends_on_clients = model_.draining() > 0 || call.about.empty();
    if (!call.reason.empty() || depends_on_clients) return;
    SCOPED_TRACE("cut off: " + call.method + " " + call.body);
    const std::string id = NewRequestId();
    death_.After(static_cast<int>(random_.Below(8)), random_.OneIn(2) ? Way::kBefore : Way::kAfter);
    const absl::StatusOr<Told> first = call.send(id, false);
    follower_.Stop();
    Kill();
    Resurrect();
    const absl::StatusOr<Told> again = call.send(id, false);
    ASSERT_TRUE(again.ok()) << again.status();
    if (first.ok()) {
      EXPECT_EQ(again->text, first->text);
    }
    model_ = call.after;
    BecomeRestarted();
    answered_.push_back({call, id, again->text});
  }

  void Repeat() {
    if (answered_.empty()) return;
    const Answered& earlier = answered_[random_.Below(answered_.size())];
    SCOPED_TRACE("again: " + earlier.call.method + " " + earlier.call.body);
    const absl::StatusOr<Told> again = earlier.call.send(earlier.id, false);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->text, earlier.text);
  }

  void Reuse() {
    if (answered_.empty()) return;
    const Answered& earlier = answered_[random_.Below(answered_.size())];
    const Answered& other = answered_[random_.Below(answered_.size())];
    const bool fits = earlier.call.method == other.call.method;
    if (!fits || earlier.call.body == other.call.body) return;
    SCOPED_TRACE("reused: " + other.call.method + " " + other.call.body);
    EXPECT_EQ(ReasonIn(other.call.send(earlier.id, false).status()), "REQUEST_ID_REUSED");
  }

  void ConnectOne() {
    for (auto& [name, exported] : model_.exports) {
      if (!exported.enabled || exported.draining || random_.OneIn(2)) continue;
      Connect(name, ++last_client_);
      exported.clients.insert(last_client_);
      return AwaitAgreement();
    }
  }
  void LeaveOne() {
    for (auto& [name, exported] : model_.exports) {
      if (exported.clients.empty() || random_.OneIn(2)) continue;
      const uint64_t id = *exported.clients.begin();
      engine_->RemoveConnection(name, id);
      model_.Leave(std::string(name), id);
      return AwaitAgreement();
    }
  }

  void CancelOne() {
    for (auto& [name, exported] : model_.exports) {
      if (!exported.draining) continue;
      google::longrunning::CancelOperationRequest request;
      request.set_name(exported.operation);
      ASSERT_TRUE(Send(request).ok());
      exported.draining = false;
      AwaitAgreement();
      const auto ended = domain_->operations().Get(exported.operation);
      EXPECT_EQ(ReasonIn(FromRpcStatus(ended->error())), "OPERATION_CANCELLED");
      exported.operation.clear();
      return;
    }
  }

  void FollowAnew() {
    follower_.Stop();
    if (random_.OneIn(2)) return follower_.Begin(*domain_);
    GoOnFollowing();
  }
  void GoOnFollowing() {
    if (follower_.moments() == 0) return follower_.Begin(*domain_);
    follower_.GoOn(*domain_, random_.Below(follower_.moments()));
  }

  std::set<std::string> NamesOf(const std::string& collection) {
    std::set<std::string> names;
    for (const Row& row : RowsOf(collection)) names.insert(row.name);
    return names;
  }
  template <typename Resources>
  static std::set<std::string> KeysOf(const Resources& resources) {
    std::set<std::string> names;
    for (const auto& [name, resource] : resources) names.insert(name);
    return names;
  }
  bool Agrees() {
    return Rows("jobs") == model_.draining() && Rows("intents") == 0 &&
           Rows("connections") == model_.clients() && NamesOf("images") == KeysOf(model_.images) &&
           NamesOf("exports") == KeysOf(model_.exports) &&
           NamesOf("filters") == KeysOf(model_.filters);
  }
  // What the last step has set off comes to its end.
  void AwaitAgreement() {
    ASSERT_TRUE(death_.Await([this] { return Agrees(); }))
        << Rows("jobs") << " jobs of " << model_.draining() << ", " << Rows("intents")
        << " intents, " << Rows("connections") << " connections of " << model_.clients()
        << ", images " << testing::PrintToString(NamesOf("images")) << " of "
        << testing::PrintToString(KeysOf(model_.images)) << ", exports "
        << testing::PrintToString(NamesOf("exports")) << " of "
        << testing::PrintToString(KeysOf(model_.exports)) << ", filters "
        << testing::PrintToString(NamesOf("filters")) << " of "
        << testing::PrintToString(KeysOf(model_.filters));
  }

  void ExpectEverythingAgrees() {
    WatchFollower::Known expected;
    ExpectImageList(&expected);
    ExpectExportList(&expected);
    ExpectFilterList(&expected);
    v1::ListConnectionsRequest request;
    request.set_parent("exports/-");
    const auto connections = domain_->connections().List(request);
    ASSERT_TRUE(connections.ok()) << connections.status();
    EXPECT_EQ(static_cast<std::size_t>(connections->connections_size()), model_.clients());
    for (const v1::Connection& one : connections->connections()) {
      expected[one.name()] = ContentOf(one);
    }
    EXPECT_EQ(follower_.Read(), expected);
  }

  // Pages of random size until the last one.
  template <typename Response, typename Request>
  std::vector<Response> AllPages(Request request) {
    std::vector<Response> pages;
    do {
      request.set_page_size(static_cast<int>(random_.Between(1, 3)));
      const absl::StatusOr<Response> page = calls_->Send(request);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      pages.push_back(*page);
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return pages;
  }

  void ExpectImageList(WatchFollower::Known* known);
  void ExpectExportList(WatchFollower::Known* known);
  void ExpectFilterList(WatchFollower::Known* known);
  void ExpectImage(const v1::Image& told, const DomainModel::Image& image);
  void ExpectExport(const v1::Export& told, const DomainModel::Export& exported);

  std::vector<Answered> answered_;
  WatchFollower follower_;
  uint64_t last_client_ = 0;
};

void DomainModelTest::ExpectImage(const v1::Image& told, const DomainModel::Image& image) {
  EXPECT_EQ(told.state(), v1::Image::STATE_ACTIVE);
  EXPECT_EQ(told.virtual_size_bytes(), image.size);
  EXPECT_EQ(told.generation(), image.generation);
  EXPECT_EQ(told.observed_generation(), image.generation);
  EXPECT_EQ(told.labels().contains("k") ? told.labels().at("k") : "", image.label);
  EXPECT_EQ(told.has_delete_time(), image.deleted);
  EXPECT_FALSE(told.reconciling());
  std::vector<std::string> users;
  for (const auto& [name, exported] : model_.exports) {
    if (exported.source == told.name()) users.push_back(name);
  }
  for (const auto& [name, other] : model_.images) {
    if (other.backing == told.name()) users.push_back(name);
  }
  EXPECT_EQ(told.backing_image(), image.backing);
  EXPECT_EQ(std::vector<std::string>(told.dependents().begin(), told.dependents().end()), users);
  const std::string file = SpecOf(told).file_name;
  ASSERT_TRUE(files_.Has(file)) << file;
  EXPECT_EQ(files_.Get(file).uid, told.uid());
  EXPECT_EQ(files_.Get(file).bytes.size(), image.size);
}

void DomainModelTest::ExpectExport(const v1::Export& told, const DomainModel::Export& exported) {
  const v1::Export::State state = exported.draining  ? v1::Export::STATE_DRAINING
                                  : exported.enabled ? v1::Export::STATE_ACTIVE
                                                     : v1::Export::STATE_HIDDEN;
  EXPECT_EQ(told.state(), state);
  EXPECT_EQ(told.source(), exported.source);
  EXPECT_EQ(told.description(), exported.description);
  EXPECT_EQ(told.read_only(), exported.read_only);
  EXPECT_EQ(told.enabled(), exported.enabled);
  EXPECT_EQ(told.generation(), exported.generation);
  EXPECT_EQ(told.observed_generation(), exported.generation);
  EXPECT_EQ(told.connection_count(), exported.clients.size());
  EXPECT_EQ(told.reconciling(), exported.draining);
  EXPECT_EQ(told.operation(), exported.operation);
  ASSERT_TRUE(engine_->Serves(told.name()));
  const engine::ExportSpec spec = engine_->Spec(told.name());
  EXPECT_EQ(spec.read_only, exported.read_only);
  EXPECT_EQ(spec.enabled, exported.enabled && !exported.draining);
  EXPECT_EQ(spec.description, exported.description);
  EXPECT_EQ(spec.generation, exported.generation);
  std::vector<std::string> stack;
  for (const auto& entry : told.filter_stack()) stack.push_back(entry.filter());
  EXPECT_EQ(stack, exported.stack);
  ASSERT_EQ(spec.filters.size(), exported.stack.size());
  for (std::size_t i = 0; i < spec.filters.size(); ++i) {
    EXPECT_EQ("filters/" + spec.filters[i].id, exported.stack[i]);
    EXPECT_EQ(std::get<filters::DelayOptions>(spec.filters[i].options).read,
              std::chrono::nanoseconds(model_.filters.at(exported.stack[i]).delay_ns));
  }
}

void DomainModelTest::ExpectFilterList(WatchFollower::Known* known) {
  std::vector<v1::Filter> told;
  for (const auto& page : AllPages<v1::ListFiltersResponse>(v1::ListFiltersRequest())) {
    told.insert(told.end(), page.filters().begin(), page.filters().end());
  }
  ASSERT_EQ(told.size(), model_.filters.size());
  for (const v1::Filter& filter : told) {
    const DomainModel::Filter& expected = model_.filters.at(filter.name());
    EXPECT_EQ(filter.spec().delay().read().nanos(), expected.delay_ns);
    EXPECT_EQ(filter.generation(), expected.generation);
    EXPECT_EQ(filter.observed_generation(), expected.generation);
    std::vector<std::string> users;
    for (const auto& [name, exported] : model_.exports) {
      const auto& stack = exported.stack;
      if (std::count(stack.begin(), stack.end(), filter.name()) > 0) users.push_back(name);
    }
    EXPECT_EQ(std::vector<std::string>(filter.exports().begin(), filter.exports().end()), users);
    (*known)[filter.name()] = ContentOf(filter);
  }
}

void DomainModelTest::ExpectImageList(WatchFollower::Known* known) {
  const v1::ListImagesResponse all = AllImages();
  std::set<std::string> files;
  std::vector<v1::Image> expected;
  for (const v1::Image& image : all.images()) {
    ASSERT_TRUE(model_.images.contains(image.name()));
    ExpectImage(image, model_.images.at(image.name()));
    (*known)[image.name()] = ContentOf(image);
    files.insert(SpecOf(image).file_name);
  }
  EXPECT_EQ(files_.names(), std::vector<std::string>(files.begin(), files.end()));
  v1::ListImagesRequest request;
  request.set_show_deleted(random_.OneIn(2));
  const bool labelled = random_.OneIn(2);
  if (labelled) request.set_filter("labels.k = \"v1\"");
  const bool by_size = random_.OneIn(2);
  if (by_size) request.set_order_by("virtual_size_bytes desc");
  std::vector<std::string> names;
  std::copy_if(all.images().begin(), all.images().end(), std::back_inserter(expected),
               [&](const v1::Image& image) {
                 const DomainModel::Image& known_image = model_.images.at(image.name());
                 return (request.show_deleted() || !known_image.deleted) &&
                        (!labelled || known_image.label == "v1");
               });
  std::sort(expected.begin(), expected.end(), [&](const v1::Image& a, const v1::Image& b) {
    const bool differ = by_size && a.virtual_size_bytes() != b.virtual_size_bytes();
    return differ ? a.virtual_size_bytes() > b.virtual_size_bytes() : a.name() < b.name();
  });
  std::vector<std::string> wanted;
  for (const v1::Image& image : expected) wanted.push_back(image.DebugString());
  std::vector<std::string> got;
  for (const auto& page : AllPages<v1::ListImagesResponse>(request)) {
    for (const v1::Image& image : page.images()) got.push_back(image.DebugString());
  }
  EXPECT_EQ(got, wanted) << request.DebugString();
}

void DomainModelTest::ExpectExportList(WatchFollower::Known* known) {
  const auto all = domain_->exports().List({});
  ASSERT_TRUE(all.ok()) << all.status();
  std::vector<v1::Export> expected;
  v1::ListExportsRequest request;
  const bool with_clients = random_.OneIn(2);
  if (with_clients) request.set_filter("connection_count > 0 OR state = STATE_DRAINING");
  const bool by_generation = random_.OneIn(2);
  if (by_generation) request.set_order_by("generation desc, read_only");
  for (const v1::Export& exported : all->exports()) {
    ASSERT_TRUE(model_.exports.contains(exported.name()));
    ExpectExport(exported, model_.exports.at(exported.name()));
    (*known)[exported.name()] = ContentOf(exported);
    const bool matches = !model_.exports.at(exported.name()).clients.empty();
    if (matches || !with_clients) expected.push_back(exported);
  }
  EXPECT_EQ(engine_->served().size(), model_.exports.size());
  std::stable_sort(expected.begin(), expected.end(), [&](const auto& a, const auto& b) {
    if (!by_generation) return a.name() < b.name();
    return std::make_pair(b.generation(), a.read_only()) <
           std::make_pair(a.generation(), b.read_only());
  });
  std::vector<std::string> wanted;
  for (const v1::Export& exported : expected) wanted.push_back(exported.DebugString());
  std::vector<std::string> got;
  for (const auto& page : AllPages<v1::ListExportsResponse>(request)) {
    for (const v1::Export& exported : page.exports()) got.push_back(exported.DebugString());
  }
  EXPECT_EQ(got, wanted) << request.DebugString();
}

TEST_F(DomainModelTest, EveryAnswerListWatchAndFileAgreesWithTheModel) {
  Run(std::chrono::seconds(10), 1000);
}

}  // namespace
}  // namespace gabion::service
