// Dry runs of calls that change filters, and what exports have of them: nothing changes, and the
// answer, or the error, is that of the call.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "google/protobuf/timestamp.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "tests/service/domain/api_calls.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;
using google::protobuf::util::MessageDifferencer;

constexpr const char* kId = "c6a7b9f0-3b1e-4f6e-9d5a-0a1b2c3d4e5f";

enum class Method { kCreateFilter, kUpdateFilter, kAttach, kDetach, kUpdateExport };

struct TrialCase {
  const char* name;
  Method method;
  const char* request;  // in text format
  const char* reason;   // "": it succeeds
};

// The engine serves no export with these in its stack: a read that takes so many seconds.
constexpr int64_t kWrongParameters = 9;
constexpr int64_t kUnfitForClients = 8;

absl::Status RefusalOf(const engine::ExportSpec& spec) {
  for (std::size_t i = 0; i < spec.filters.size(); ++i) {
    const auto* delay = std::get_if<filters::DelayOptions>(&spec.filters[i].options);
    if (delay == nullptr) continue;
    if (delay->read == std::chrono::seconds(kWrongParameters)) {
      return WithReason(absl::InvalidArgumentError("too slow"), {"FILTER_PARAMETERS_INVALID",
                                                                 {{"entry-id", spec.filters[i].id},
                                                                  {"index", absl::StrCat(i)},
                                                                  {"field", "delay.read"}}});
    }
    if (delay->read == std::chrono::seconds(kUnfitForClients)) {
      return WithReason(absl::FailedPreconditionError("clients"),
                        {"STACK_INCOMPATIBLE_WITH_CONNECTIONS", {{"connections", "1"}}});
    }
  }
  return absl::OkStatus();
}

// Without times and etags, which are those of the moment.
void Strip(Message* message) {
  const google::protobuf::Reflection& r = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  r.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool inner = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map();
    if (field->name() == "etag" ||
        (inner && field->message_type() == google::protobuf::Timestamp::descriptor())) {
      r.ClearField(message, field);
    } else if (inner && field->is_repeated()) {
      for (int i = 0; i < r.FieldSize(*message, field); ++i) {
        Strip(r.MutableRepeatedMessage(message, field, i));
      }
    } else if (inner) {
      Strip(r.MutableMessage(message, field));
    }
  }
}

// exports/e of images/a: gold, delay (inline) and slow, with a client; exports/f of images/b: slow.
class FilterTrialTest : public DomainFixture {
 protected:
  using Answer = absl::StatusOr<std::unique_ptr<Message>>;

  FilterTrialTest()
      : DomainFixture([](DomainOptions* options) {
          // What is failed stays so.
          options->exports.reconciler = {std::chrono::hours(1), std::chrono::hours(1)};
        }) {
    prepare_engine_ = [](FakeEngine* engine) { engine->SetStackCheck(RefusalOf); };
    Reopen();
    for (const char* id : {"a", "b", "c"}) EXPECT_TRUE(CreateImage(id).ok());
    EXPECT_TRUE(CreateFilter("slow", "delay { read { seconds: 1 } }").ok());
    EXPECT_TRUE(CreateFilter("gold", "throttle { read_ops { average_per_second: 10 } }").ok());
    EXPECT_TRUE(CreateFilter("free", "log {}").ok());
    EXPECT_TRUE(CreateExport("e", "images/a", [](v1::Export* e) {
                  AddEntry(e, "filter: 'filters/gold'");
                  AddEntry(e, "spec { delay { write { seconds: 2 } } }");
                  AddEntry(e, "filter: 'filters/slow'");
                }).ok());
    EXPECT_TRUE(CreateExport("f", "images/b", [](v1::Export* e) {
                  AddEntry(e, "filter: 'filters/slow'");
                }).ok());
    engine_->AddConnection("exports/e", {.id = 1, .minimum_bytes = 1});
    AwaitConnections(1);
  }

  void Reopen() {
    api_.reset();
    Restart();
    api_ = std::make_unique<ApiCalls>(*domain_);
    AwaitConnections(0);
  }
  // Until the observer has written of so many; ctest ends the test otherwise.
  void AwaitConnections(std::size_t count) {
    while (kept_->List("connections", "", 10)->rows.size() != count) std::this_thread::yield();
  }

  template <typename Request>
  Answer SendAs(const std::string& text, bool dry) {
    Request request;
    EXPECT_TRUE(TextFormat::ParseFromString(text, &request)) << text;
    request.set_validate_only(dry);
    request.set_request_id(kId);  // that of a dry run is not used up
    auto answer = api_->Send(request);
    if (!answer.ok()) return answer.status();
    return std::make_unique<std::decay_t<decltype(*answer)>>(*std::move(answer));
  }
  Answer Send(Method method, const std::string& text, bool dry) {
    switch (method) {
      case Method::kCreateFilter:
        return SendAs<v1::CreateFilterRequest>(text, dry);
      case Method::kUpdateFilter:
        return SendAs<v1::UpdateFilterRequest>(text, dry);
      case Method::kAttach:
        return SendAs<v1::AttachFilterRequest>(text, dry);
      case Method::kDetach:
        return SendAs<v1::DetachFilterRequest>(text, dry);
      case Method::kUpdateExport:
        return SendAs<v1::UpdateExportRequest>(text, dry);
    }
    return absl::InternalError("no such method");
  }

  // All that is stored, served and told, and what the engine was asked to do.
  std::map<std::string, std::string> World() {
    std::map<std::string, std::string> all = {{"revision", absl::StrCat(*kept_->Revision())}};
    for (const char* collection : {"filters", "exports", "intents", "requests", "operations"}) {
      const auto page = kept_->List(collection, "", 1000);
      for (const Row& row : page->rows) all[absl::StrCat(collection, " ", row.name)] = row.value;
    }
    all["filters told"] = domain_->filters().List({})->DebugString();
    all["exports told"] = domain_->exports().List({})->DebugString();
    for (const std::string& name : engine_->served()) {
      const engine::ExportSpec spec = engine_->Spec(name);
      std::string& served = all["served " + name];
      served = absl::StrCat(spec.generation, spec.read_only, spec.enabled);
      for (const engine::FilterEntry& entry : spec.filters) {
        absl::StrAppend(&served, " ", entry.id, entry.bypassed ? " bypassed" : "");
      }
    }
    for (const char* method : {"CreateExport", "UpdateExport", "DeleteExport"}) {
      all[method] = absl::StrCat(engine_->calls(method));
    }
    return all;
  }

  static void ExpectSameError(const absl::Status& tried, const absl::Status& done) {
    EXPECT_EQ(tried.code(), done.code()) << tried << "\n" << done;
    EXPECT_EQ(tried.message(), done.message());
    EXPECT_TRUE(MessageDifferencer::Equals(InfoOf(tried), InfoOf(done))) << tried << "\n" << done;
    EXPECT_EQ(ViolationsOf(tried), ViolationsOf(done));
  }

  // A dry run, and then the call.
  void Try(Method method, const std::string& request, const std::string& reason) {
    const auto before = World();
    const Answer tried = Send(method, request, true);
    EXPECT_EQ(World(), before);
    const Answer done = Send(method, request, false);
    ASSERT_EQ(done.ok(), reason.empty()) << done.status();
    ASSERT_EQ(tried.ok(), done.ok()) << tried.status() << "\n" << done.status();
    if (!done.ok()) {
      EXPECT_EQ(ReasonIn(done.status()), reason);
      return ExpectSameError(tried.status(), done.status());
    }
    EXPECT_NE(World(), before) << "at least the request is noted";
    for (Message* answer : {tried->get(), done->get()}) {
      Strip(answer);
      if (method != Method::kCreateFilter) continue;
      answer->GetReflection()->ClearField(answer, answer->GetDescriptor()->FindFieldByName("uid"));
    }
    EXPECT_EQ((*tried)->DebugString(), (*done)->DebugString());
  }

  std::unique_ptr<ApiCalls> api_;
};

class FilterTrialCaseTest : public FilterTrialTest,
                            public testing::WithParamInterface<TrialCase> {};

TEST_P(FilterTrialCaseTest, ChangesNothingAndTellsTheCall) {
  Try(GetParam().method, GetParam().request, GetParam().reason);
}

std::string NameOf(const testing::TestParamInfo<TrialCase>& info) { return info.param.name; }

constexpr TrialCase kFilterCases[] = {
    {"Creation", Method::kCreateFilter,
     "filter_id: 'new' filter { description: 'd' labels { key: 'k' value: 'v' } spec { stats {} } "
     "}",
     ""},
    {"CreationOfOneThatIsShared", Method::kCreateFilter,
     "filter_id: 'new' filter { spec { throttle {} } }", ""},
    {"CreationOfOneThatIsThere", Method::kCreateFilter,
     "filter_id: 'free' filter { spec { log {} } }", "RESOURCE_EXISTS"},
    {"CreationOfAnotherOne", Method::kCreateFilter,
     "filter_id: 'free' filter { spec { stats {} } }", "RESOURCE_EXISTS_DIFFERENT"},
    {"CreationWithoutAKind", Method::kCreateFilter, "filter_id: 'new' filter { spec {} }",
     "FILTER_KIND_UNKNOWN"},
    {"CreationOfADisabledKind", Method::kCreateFilter,
     "filter_id: 'new' filter { spec { fault {} } }", "FILTER_KIND_DISABLED"},
    {"CreationWithWrongParameters", Method::kCreateFilter,
     "filter_id: 'new' filter { spec { write_protect { ranges { offset_bytes: 1 "
     "length_bytes: 18446744073709551615 } } } }",
     "FILTER_PARAMETERS_INVALID"},
    {"CreationWithAWrongName", Method::kCreateFilter, "filter_id: 'New' filter { spec { log {} } }",
     "NAME_INVALID"},
    {"Update", Method::kUpdateFilter,
     "filter { name: 'filters/slow' spec { delay { read { seconds: 2 } } } }", ""},
    {"UpdateOfOneThatIsShared", Method::kUpdateFilter,
     "filter { name: 'filters/gold' spec { throttle { read_ops { average_per_second: 7 } } } }",
     ""},
    {"UpdateOfOneThatIsNotAttached", Method::kUpdateFilter,
     "filter { name: 'filters/free' spec { log { failures_only: true } } }", ""},
    {"UpdateOfTheDescription", Method::kUpdateFilter,
     "filter { name: 'filters/slow' description: 'd' }", ""},
    {"UpdateOfBoth", Method::kUpdateFilter,
     "filter { name: 'filters/slow' description: 'd' spec { delay { write { seconds: 1 } } } } "
     "update_mask { paths: 'description' paths: 'spec' }",
     ""},
    {"UpdateOfAll", Method::kUpdateFilter,
     "filter { name: 'filters/slow' spec { delay {} } } update_mask { paths: '*' }", ""},
    {"UpdateOfNothing", Method::kUpdateFilter,
     "filter { name: 'filters/slow' spec { delay { read { seconds: 1 } } } }", ""},
    {"UpdateOfTheKind", Method::kUpdateFilter, "filter { name: 'filters/slow' spec { log {} } }",
     "FIELD_IMMUTABLE"},
    {"UpdateOfNone", Method::kUpdateFilter, "filter { name: 'filters/none' spec { log {} } }",
     "RESOURCE_NOT_FOUND"},
    {"UpdateOfAnotherEtag", Method::kUpdateFilter,
     "filter { name: 'filters/slow' etag: '\"x\"' description: 'd' }", "ETAG_MISMATCH"},
    {"UpdateOfAWrongField", Method::kUpdateFilter,
     "filter { name: 'filters/slow' } update_mask { paths: 'specs' }", "FIELD_MASK_INVALID"},
    {"UpdateThatAnExportRefuses", Method::kUpdateFilter,
     "filter { name: 'filters/slow' spec { delay { read { seconds: 9 } } } }",
     "FILTER_PARAMETERS_INVALID"},
    {"UpdateThatClientsStandAgainst", Method::kUpdateFilter,
     "filter { name: 'filters/slow' spec { delay { read { seconds: 8 } } } }",
     "STACK_INCOMPATIBLE_WITH_CONNECTIONS"}};
INSTANTIATE_TEST_SUITE_P(OfFilters, FilterTrialCaseTest, testing::ValuesIn(kFilterCases), NameOf);

constexpr TrialCase kAttachCases[] = {
    {"AtTheTop", Method::kAttach, "name: 'exports/e' entry { spec { log {} } }", ""},
    {"AtAnIndex", Method::kAttach, "name: 'exports/e' entry { spec { delay {} } } index: 3", ""},
    {"BeforeAnother", Method::kAttach,
     "name: 'exports/e' entry { entry_id: 'x' bypassed: true filter: 'filters/free' } "
     "before_entry_id: 'slow'",
     ""},
    {"AfterAnother", Method::kAttach,
     "name: 'exports/e' entry { filter: 'filters/slow' } after_entry_id: 'slow'", ""},
    {"WhereNothingIs", Method::kAttach, "name: 'exports/e' entry { spec { log {} } } index: 4",
     "FIELD_INVALID"},
    {"ATakenId", Method::kAttach, "name: 'exports/e' entry { entry_id: 'slow' spec { log {} } }",
     "FILTER_ALREADY_ATTACHED"},
    {"ASharedOneTwice", Method::kAttach, "name: 'exports/e' entry { filter: 'filters/gold' }",
     "STACK_ENTRY_DUPLICATE"},
    {"NoFilter", Method::kAttach, "name: 'exports/e' entry { filter: 'filters/none' }",
     "RESOURCE_NOT_FOUND"},
    {"NoImage", Method::kAttach,
     "name: 'exports/e' entry { spec { verify { reference_image: 'images/none' } } }",
     "RESOURCE_NOT_FOUND"},
    {"ToNoExport", Method::kAttach, "name: 'exports/none' entry { spec { log {} } }",
     "RESOURCE_NOT_FOUND"},
    {"ADisabledKind", Method::kAttach, "name: 'exports/e' entry { spec { fault {} } }",
     "FILTER_KIND_DISABLED"},
    {"OfAnotherEtag", Method::kAttach, "name: 'exports/e' entry { spec { log {} } } etag: '\"x\"'",
     "ETAG_MISMATCH"},
    {"WrongParameters", Method::kAttach,
     "name: 'exports/e' entry { spec { delay { read { seconds: 9 } } } } index: 1",
     "FILTER_PARAMETERS_INVALID"},
    {"WhatClientsStandAgainst", Method::kAttach,
     "name: 'exports/e' entry { spec { delay { read { seconds: 8 } } } }",
     "STACK_INCOMPATIBLE_WITH_CONNECTIONS"},
    {"DetachmentOfANamedOne", Method::kDetach, "name: 'exports/e' entry_id: 'gold'", ""},
    {"DetachmentOfAnInlineOne", Method::kDetach, "name: 'exports/e' entry_id: 'delay'", ""},
    {"DetachmentOfTheLastOne", Method::kDetach, "name: 'exports/f' entry_id: 'slow'", ""},
    {"DetachmentOfNone", Method::kDetach, "name: 'exports/e' entry_id: 'none'",
     "RESOURCE_NOT_FOUND"},
    {"DetachmentOfNoneThatMayBeMissing", Method::kDetach,
     "name: 'exports/e' entry_id: 'none' allow_missing: true", ""},
    {"DetachmentFromNoExport", Method::kDetach,
     "name: 'exports/none' entry_id: 'gold' allow_missing: true", "RESOURCE_NOT_FOUND"},
    {"DetachmentOfAnotherEtag", Method::kDetach, "name: 'exports/e' entry_id: 'gold' etag: '\"x\"'",
     "ETAG_MISMATCH"}};
INSTANTIATE_TEST_SUITE_P(OfAttachments, FilterTrialCaseTest, testing::ValuesIn(kAttachCases),
                         NameOf);

constexpr TrialCase kStackCases[] = {
    {"Another", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { filter: 'filters/free' } "
     "filter_stack { spec { stats {} } } }",
     ""},
    {"None", Method::kUpdateExport,
     "export { name: 'exports/e' } update_mask { paths: 'filter_stack' }", ""},
    {"TheSame", Method::kUpdateExport,
     "export { name: 'exports/f' filter_stack { filter: 'filters/slow' } }", ""},
    {"AnotherAndSizesThatClientsDoNotKnow", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { spec { log {} } } "
     "block_sizes { minimum_bytes: 4096 } }",
     ""},
    {"AnotherForReading", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { spec { log {} } } read_only: true "
     "enabled: false }",
     ""},
    {"OfANewExport", Method::kUpdateExport,
     "allow_missing: true export { name: 'exports/g' source: 'images/c' "
     "filter_stack { spec { delay { read { seconds: 9 } } } } }",
     "FILTER_PARAMETERS_INVALID"},
    {"TheSameIdTwice", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { entry_id: 'x' spec { log {} } } "
     "filter_stack { entry_id: 'x' spec { log {} } } }",
     "STACK_ENTRY_DUPLICATE"},
    {"ASharedOneTwice", Method::kUpdateExport,
     "export { name: 'exports/f' filter_stack { filter: 'filters/gold' } "
     "filter_stack { filter: 'filters/gold' } }",
     "STACK_ENTRY_DUPLICATE"},
    {"NoFilter", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { filter: 'filters/none' } }", "RESOURCE_NOT_FOUND"},
    {"OfNoExport", Method::kUpdateExport,
     "export { name: 'exports/none' filter_stack { spec { log {} } } }", "RESOURCE_NOT_FOUND"},
    {"OfAnotherEtag", Method::kUpdateExport,
     "export { name: 'exports/e' etag: '\"x\"' filter_stack { spec { log {} } } }",
     "ETAG_MISMATCH"},
    {"WrongParameters", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { spec { log {} } } "
     "filter_stack { spec { delay { read { seconds: 9 } } } } }",
     "FILTER_PARAMETERS_INVALID"},
    {"WhatClientsStandAgainst", Method::kUpdateExport,
     "export { name: 'exports/e' filter_stack { spec { delay { read { seconds: 8 } } } } }",
     "STACK_INCOMPATIBLE_WITH_CONNECTIONS"}};
INSTANTIATE_TEST_SUITE_P(OfStacks, FilterTrialCaseTest, testing::ValuesIn(kStackCases), NameOf);

TEST_F(FilterTrialTest, OfAStackThatIsFull) {
  v1::Export exported = GetExport("exports/f");
  while (exported.filter_stack_size() < 64) AddEntry(&exported, "spec { log {} }");
  ASSERT_TRUE(UpdateExport(exported, {"filter_stack"}).ok());
  Try(Method::kAttach, "name: 'exports/f' entry { spec { log {} } }", "FILTER_STACK_TOO_DEEP");
  Try(Method::kUpdateFilter,
      "filter { name: 'filters/slow' spec { delay { read { seconds: 2 } } } }", "");
}

// What an export that cannot be served is told.
class FailedExportTrialTest : public FilterTrialTest {
 protected:
  FailedExportTrialTest() {
    files_.SetLocked("b.raw", true);
    Reopen();
    EXPECT_EQ(GetExport("exports/f").state(), v1::Export::STATE_FAILED);
  }
};

TEST_F(FailedExportTrialTest, ChangesThatDoNotHelpAreMadeNevertheless) {
  Try(Method::kAttach, "name: 'exports/f' entry { spec { log {} } }", "");
  EXPECT_EQ(GetExport("exports/f").state(), v1::Export::STATE_FAILED);
}

TEST_F(FailedExportTrialTest, OnceItCanBeServedItIs) {
  files_.SetLocked("b.raw", false);
  Try(Method::kDetach, "name: 'exports/f' entry_id: 'slow'", "");
  EXPECT_EQ(GetExport("exports/f").state(), v1::Export::STATE_ACTIVE);
}

TEST_F(FailedExportTrialTest, WhatStandsAgainstItAnewIsAnError) {
  files_.SetLocked("b.raw", false);
  Try(Method::kAttach, "name: 'exports/f' entry { spec { delay { read { seconds: 9 } } } }",
      "FILTER_PARAMETERS_INVALID");
  Try(Method::kUpdateExport,
      "export { name: 'exports/f' filter_stack { spec { delay { read { seconds: 8 } } } } }",
      "STACK_INCOMPATIBLE_WITH_CONNECTIONS");
  EXPECT_EQ(GetExport("exports/f").state(), v1::Export::STATE_FAILED);
}

TEST_F(FailedExportTrialTest, OfAFilterItIsNotAsked) {
  Try(Method::kUpdateFilter,
      "filter { name: 'filters/slow' spec { delay { read { seconds: 3 } } } }", "");
}

}  // namespace
}  // namespace gabion::service
