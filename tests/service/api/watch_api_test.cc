#include "service/api/watch_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "service/store/memory_store.h"
#include "tests/service/domain/watch_fixture.h"
#include "tests/service/temp_dir.h"
#include "tests/support/random_source.h"

namespace gabion::service {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;

// One stream of a client.
class Reader {
 public:
  Reader(v1::WatchService::Stub& stub, const v1::WatchRequest& request)
      : reader_(stub.Watch(&context_, request)) {}
  ~Reader() {
    context_.TryCancel();
    if (!finished_) (void)End();
  }

  // Blocks until there is one; nothing: the stream has ended.
  std::optional<v1::WatchResponse> Next() {
    v1::WatchResponse message;
    if (!reader_->Read(&message)) return std::nullopt;
    return message;
  }
  std::string Text() {
    const std::optional<v1::WatchResponse> message = Next();
    return message.has_value() ? TextOf(*message) : "(end)";
  }
  // How the stream ended; messages before that are dropped.
  absl::Status End() {
    while (Next().has_value()) {
    }
    finished_ = true;
    return FromGrpcStatus(reader_->Finish());
  }
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader_;
  bool finished_ = false;
};

class WatchApiTest : public testing::Test {
 protected:
  WatchApiTest() {
    const std::string address = "unix:" + (dir_ / "gabiond.sock");
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(&api_);
    server_ = builder.BuildAndStart();
    // What is under way to a client that does not read stays small.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
    stub_ = v1::WatchService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }
  ~WatchApiTest() override {
    StopServer(seconds(0));
    executor_.Stop();
  }

  void StopServer(seconds grace) {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + grace);
    server_->Wait();
    server_ = nullptr;
  }
  std::unique_ptr<Reader> Open(const v1::WatchRequest& request) {
    return std::make_unique<Reader>(*stub_, request);
  }
  // A stream of a collection that has told what is there.
  std::unique_ptr<Reader> Follow(const std::string& collection) {
    auto reader = Open(Initial(collection));
    std::optional<v1::WatchResponse> message;
    do {
      message = reader->Next();
    } while (message.has_value() && message->kind() != v1::WatchResponse::KIND_INITIAL_DONE);
    EXPECT_TRUE(message.has_value());
    return reader;
  }
  static v1::WatchRequest Initial(const std::string& collection) {
    v1::WatchRequest request;
    request.add_collections(collection);
    request.set_send_initial(true);
    return request;
  }
  static v1::WatchRequest After(const std::string& collection, uint64_t revision) {
    v1::WatchRequest request;
    request.add_collections(collection);
    request.set_after_revision(revision);
    return request;
  }
  uint64_t Commit(const std::vector<Mutation>& steps) {
    const absl::StatusOr<uint64_t> revision = store_->Commit(steps);
    EXPECT_TRUE(revision.ok()) << revision.status();
    return revision.value_or(0);
  }
  // So large that a few of them are more than a connection takes without being read.
  void PutLarge(const std::string& collection, int count) {
    for (int i = 0; i < count; ++i) {
      Commit({Put(collection, absl::StrCat(collection, "/i", i), std::string(64 << 10, 'x'))});
    }
  }

  const TempDir dir_;
  const std::unique_ptr<MetadataStore> store_ = NewMemoryStore();
  StoredViews views_{*store_};
  ChangeFeed feed_{*store_};
  Executor executor_{4};
  ResourceLocks locks_;
  const PageTokens tokens_{NewPageTokenKey()};
  RequestLog requests_{*store_, locks_};
  OperationManager operations_{*store_, locks_, tokens_, NullLogger(), OperationOptions()};
  Calls calls_{executor_, NullLogger(), requests_, operations_};
  Timers timers_;
  WatchApi api_{calls_, timers_, {*store_, feed_, views_}};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::WatchService::Stub> stub_;
};

TEST_F(WatchApiTest, TellsWhatIsThereAndThenWhatChangesWhenItDoes) {
  Commit({Put("images", "images/a", "1"), Put("exports", "exports/e", "1")});
  const auto reader = Open(Initial("images"));
  EXPECT_EQ(reader->Text(), "PUT 0 images/a=1");
  EXPECT_EQ(reader->Text(), "INITIAL_DONE 2");
  Commit({Put("exports", "exports/e", "2"), Put("images", "images/b", "2")});
  EXPECT_EQ(reader->Text(), "PUT 4 images/b=2");
  Commit({Remove("images", "images/a")});
  EXPECT_EQ(reader->Text(), "DELETED 5 images/a");
}

TEST_F(WatchApiTest, GoesOnAfterARevision) {
  Commit({Put("images", "images/a", "1"), Put("images", "images/b", "2")});
  Commit({Put("images", "images/c", "3")});
  const auto reader = Open(After("images", 1));
  EXPECT_EQ(reader->Text(), "PUT 2 images/b=2");
  EXPECT_EQ(reader->Text(), "PUT 3 images/c=3");
}

TEST_F(WatchApiTest, ErrorsComeWithTheirDetails) {
  for (int i = 0; i < 4; ++i) Commit({Put("images", "images/a", "1")});
  ASSERT_TRUE(store_->TrimChanges(3).ok());
  absl::Status status = Open(After("images", 1))->End();
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
  EXPECT_EQ(InfoOf(status).reason(), "REVISION_COMPACTED");
  EXPECT_EQ(InfoOf(status).metadata().at("oldest-revision"), "3");

  status = Open(After("disks", 3))->End();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(InfoOf(status).reason(), "FIELD_INVALID");

  v1::WatchRequest request;
  request.mutable_bookmark_interval()->set_nanos(1);
  status = Open(request)->End();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(InfoOf(status).metadata().at("field"), "bookmark_interval");
}

TEST_F(WatchApiTest, BookmarksComeWhenNothingElseDoes) {
  v1::WatchRequest request = Initial("exports");
  request.mutable_bookmark_interval()->set_seconds(1);
  const auto reader = Open(request);
  EXPECT_EQ(reader->Text(), "INITIAL_DONE 0");
  Commit({Put("images", "images/a", "1")});
  EXPECT_EQ(reader->Text(), "BOOKMARK 1");
  EXPECT_EQ(reader->Text(), "BOOKMARK 1");
}

TEST_F(WatchApiTest, ASlowReaderIsNotReadAheadOfAndKeepsNobodyWaiting) {
  constexpr int kCount = 300;
  Commit({Put("operations", "operations/first", "1")});
  PutLarge("images", kCount);
  const auto slow = Open(After("images", 1));
  EXPECT_TRUE(slow->Next().has_value());
  const auto fast = Follow("exports");
  PutLarge("exports", kCount);
  for (int i = 0; i < kCount; ++i) ASSERT_TRUE(fast->Next().has_value());
  EXPECT_LE(views_.reads("images"), 64);  // one batch: more than what the connection takes
  for (int i = 1; i < kCount; ++i) ASSERT_TRUE(slow->Next().has_value());
  EXPECT_EQ(views_.reads("images"), kCount);
}

TEST_F(WatchApiTest, AReaderThatTheLogOvertakesIsToldWhereItWas) {
  Commit({Put("operations", "operations/first", "1")});
  PutLarge("images", 300);
  const auto slow = Open(After("images", 1));
  std::optional<v1::WatchResponse> message = slow->Next();
  ASSERT_TRUE(store_->TrimChanges(*store_->Revision()).ok());
  uint64_t last = 0;
  for (; message.has_value(); message = slow->Next()) last = message->revision();
  const absl::Status status = slow->End();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_EQ(InfoOf(status).reason(), "WATCH_LAGGED");
  EXPECT_EQ(InfoOf(status).metadata().at("revision"), absl::StrCat(last));
}

TEST_F(WatchApiTest, NoGapUnderAConcurrentWriter) {
  test::RandomSource random;
  const uint64_t seed = random.Next();
  std::thread writer([&] {
    test::RandomSource choices(seed);
    for (int i = 0; i < 500; ++i) {
      const std::string name = absl::StrCat("images/i", choices.Below(8));
      // A row to be deleted need not be there: then nothing is committed.
      (void)store_->Commit(
          {choices.OneIn(3) ? Remove("images", name) : Put("images", name, absl::StrCat(i))});
    }
    Commit({Put("images", "images/last", "1")});
  });
  const auto reader = Open(Initial("images"));
  Mirror mirror;
  while (!mirror.known().contains("images/last")) {
    const std::optional<v1::WatchResponse> message = reader->Next();
    EXPECT_TRUE(message.has_value());
    if (!message.has_value()) break;
    mirror.Apply(*message);
  }
  writer.join();
  // What came last may have been told before what else is in its page.
  Commit({Put("images", "images/end", "1")});
  while (!mirror.known().contains("images/end")) {
    const std::optional<v1::WatchResponse> message = reader->Next();
    ASSERT_TRUE(message.has_value());
    mirror.Apply(*message);
  }
  EXPECT_EQ(mirror.known(), RowsOf(*store_, "images"));
}

TEST_F(WatchApiTest, AHundredWatchersAllHearEverything) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 100; ++i) readers.push_back(Follow("images"));
  for (int i = 1; i <= 50; ++i) Commit({Put("images", absl::StrCat("images/i", i), "x")});
  for (const auto& reader : readers) {
    for (int i = 1; i <= 50; ++i) {
      ASSERT_EQ(reader->Text(), absl::StrCat("PUT ", i, " images/i", i, "=x"));
    }
  }
}

TEST_F(WatchApiTest, TheEndOfTheDaemonEndsAllStreams) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 3; ++i) readers.push_back(Follow("images"));
  api_.Drain();
  readers.push_back(Open(Initial("images")));  // comes too late
  for (const auto& reader : readers) {
    const absl::Status status = reader->End();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_EQ(InfoOf(status).reason(), "DRAINING");
  }
}

TEST_F(WatchApiTest, AClientThatDoesNotReadDoesNotKeepTheDaemonFromEnding) {
  Commit({Put("operations", "operations/first", "1")});
  // Each is more than a connection takes, so that the second one's write does not end.
  for (const char* name : {"images/a", "images/b"}) {
    Commit({Put("images", name, std::string(2 << 20, 'x'))});
  }
  const auto stuck = Open(After("images", 1));
  EXPECT_TRUE(stuck->Next().has_value());
  const auto begin = std::chrono::steady_clock::now();
  api_.Drain();
  StopServer(seconds(60));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(30));
  EXPECT_FALSE(stuck->End().ok());
}

TEST_F(WatchApiTest, CancelledStreamsAreGone) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 20; ++i) readers.push_back(Follow("images"));
  for (const auto& reader : readers) reader->Cancel();
  for (int i = 0; i < 20; ++i) Commit({Put("images", "images/a", "x")});
  for (const auto& reader : readers) EXPECT_TRUE(absl::IsCancelled(reader->End()));
  const auto begin = std::chrono::steady_clock::now();
  StopServer(seconds(600));  // returns when no stream is left
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(60));
  Commit({Put("images", "images/a", "x")});
}

TEST_F(WatchApiTest, AServerThatStopsAtOnceEndsThem) {
  const auto idle = Follow("images");
  StopServer(seconds(0));
  EXPECT_FALSE(idle->End().ok());
}

}  // namespace
}  // namespace gabion::service
