// Every method against requests that are wrong in one place, and in all of them.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gabion/v1/options.pb.h"
#include "google/api/resource.pb.h"
#include "service/field_rules.h"
#include "service/message_rules.h"
#include "tests/service/api/contract_fixture.h"
#include "tests/support/random_source.h"

namespace gabion::service {
namespace {

class MethodChecksTest : public MethodTest {
 protected:
  bool updates() const { return kind_ == MethodKind::kUpdate; }
  // Changes one field of a valid request at a time and expects that it is told as a violation.
  using Spoil = std::function<bool(Message*, const FieldDescriptor*)>;  // false: not this field
  void ExpectEachRefused(bool into_missing, const std::string& reason, const Spoil& spoil) {
    const auto request = Valid();
    ForEachSettable(request.get(), into_missing,
                    [&](Message* message, const FieldDescriptor* field, const std::string& path) {
                      const std::unique_ptr<Message> before(message->New());
                      before->CopyFrom(*message);
                      if (spoil(message, field)) {
                        const absl::Status status = Invoke(method_, *request).status;
                        EXPECT_TRUE(Violates(status, path, reason))
                            << path << ": " << status << "\n"
                            << ViolationsOf(status).ShortDebugString();
                      }
                      message->CopyFrom(*before);
                    });
  }
  void SetRandom(Message* message, const FieldDescriptor* field, test::RandomSource& random);
};

TEST_P(MethodChecksTest, TheCallOfTheTableSucceeds) {
  const Answer answer = Invoke(method_, *Valid());
  EXPECT_TRUE(answer.status.ok()) << answer.status;
}

TEST_P(MethodChecksTest, MalformedNamesAreRefusedWhereTheyStand) {
  for (const char* name : {"No/Such Name", "images", "images/", "images/UPPER", "/"}) {
    ExpectEachRefused(false, "NAME_INVALID", [&](Message* message, const FieldDescriptor* field) {
      const bool named = field->options().HasExtension(google::api::resource_reference) ||
                         (updates() && HasBehavior(*field, google::api::IDENTIFIER));
      if (!named) return false;
      message->GetReflection()->SetString(message, field, name);
      return true;
    });
  }
}

TEST_P(MethodChecksTest, MalformedIdsOfNewResourcesAreRefused) {
  for (const char* id : {"Upper", "1st", "a-", "a_b", "a/b"}) {
    ExpectEachRefused(false, "NAME_INVALID", [&](Message* message, const FieldDescriptor* field) {
      if (field->options().GetExtension(v1::rules).format() != v1::Rules::FORMAT_RESOURCE_ID) {
        return false;
      }
      message->GetReflection()->SetString(message, field, id);
      return true;
    });
  }
}

TEST_P(MethodChecksTest, MissingFieldsAreNamed) {
  ExpectEachRefused(false, "FIELD_REQUIRED", [&](Message* message, const FieldDescriptor* field) {
    // What an update leaves out stays as it is, but for the resource's name.
    const bool inside = message->GetDescriptor() != method_.descriptor->input_type();
    const bool required = updates() && inside ? HasBehavior(*field, google::api::IDENTIFIER)
                                              : HasBehavior(*field, google::api::REQUIRED);
    if (required) message->GetReflection()->ClearField(message, field);
    return required;
  });
}

TEST_P(MethodChecksTest, RequestIdsAreUuids) {
  ExpectEachRefused(false, "FIELD_INVALID", [&](Message* message, const FieldDescriptor* field) {
    if (field != method_.request_id) return false;
    message->GetReflection()->SetString(message, field, "c6a7b9f0-3b1e-1f6e-9d5a-0a1b2c3d4e5f");
    return true;
  });
}

TEST_P(MethodChecksTest, UnknownEnumValuesAreRefused) {
  ExpectEachRefused(true, "FIELD_INVALID", [&](Message* message, const FieldDescriptor* field) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_ENUM) return false;
    message->GetReflection()->SetEnumValue(message, field, 12345);
    return true;
  });
}

// Two requests that are only tried: one as in the table, one with nonsense where only the server
// writes.
TEST_P(MethodChecksTest, OutputOnlyFieldsOfRequestsAreIgnored) {
  if (method_.validate_only == nullptr) GTEST_SKIP() << "it cannot be tried";
  const auto plain = Valid();
  SetFlag(plain.get(), method_.validate_only);
  const auto filled = Valid();
  SetFlag(filled.get(), method_.validate_only);
  const FieldDescriptor* field = ResourceField(*method_.descriptor->input_type());
  if (field == nullptr) GTEST_SKIP() << "it takes no resource";
  Message* resource = filled->GetReflection()->MutableMessage(filled.get(), field);
  test::RandomSource random(1);
  int set = 0;
  for (int i = 0; i < resource->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* output = resource->GetDescriptor()->field(i);
    if (!HasBehavior(*output, google::api::OUTPUT_ONLY)) continue;
    SetRandom(resource, output, random);
    ++set;
  }
  EXPECT_GT(set, 5);
  const Answer expected = Invoke(method_, *plain);
  const Answer answer = Invoke(method_, *filled);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  const auto without_ids = [](const Message& message) {
    std::string text = message.Utf8DebugString();
    for (const char* name : {"uid: ", "etag: ", "seconds: ", "nanos: "}) {
      for (size_t at = 0; (at = text.find(name, at)) != std::string::npos;) {
        text.erase(at, text.find('\n', at) - at);
      }
    }
    return text;
  };
  EXPECT_EQ(without_ids(*answer.message), without_ids(*expected.message));
}

// Of whatever type; a list gets one element.
void MethodChecksTest::SetRandom(Message* message, const FieldDescriptor* field,
                                 test::RandomSource& random) {
  const auto& r = *message->GetReflection();
  const bool list = field->is_repeated();
  static constexpr uint64_t kEdges[] = {0, 1, 7, 512, 4096, uint64_t{1} << 31, ~uint64_t{0}};
  const uint64_t n = random.OneIn(3) ? random.Next() : random.Pick(kEdges);
  if (field->is_map()) return;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return list ? r.AddInt32(message, field, static_cast<int32_t>(n))
                  : r.SetInt32(message, field, static_cast<int32_t>(n));
    case FieldDescriptor::CPPTYPE_INT64:
      return list ? r.AddInt64(message, field, static_cast<int64_t>(n))
                  : r.SetInt64(message, field, static_cast<int64_t>(n));
    case FieldDescriptor::CPPTYPE_UINT32:
      return list ? r.AddUInt32(message, field, static_cast<uint32_t>(n))
                  : r.SetUInt32(message, field, static_cast<uint32_t>(n));
    case FieldDescriptor::CPPTYPE_UINT64:
      return list ? r.AddUInt64(message, field, n) : r.SetUInt64(message, field, n);
    case FieldDescriptor::CPPTYPE_BOOL:
      return list ? r.AddBool(message, field, n % 2 == 0) : r.SetBool(message, field, n % 2 == 0);
    case FieldDescriptor::CPPTYPE_ENUM:
      return list ? r.AddEnumValue(message, field, static_cast<int>(n % 20))
                  : r.SetEnumValue(message, field, static_cast<int>(n % 20));
    case FieldDescriptor::CPPTYPE_STRING: {
      static const std::vector<std::string> kTexts = {"",
                                                      "x",
                                                      "images/a",
                                                      "exports/e",
                                                      "images/-",
                                                      "exports/e/connections/1",
                                                      "../..",
                                                      "\n",
                                                      "operations",
                                                      "name = \"a\"",
                                                      std::string(5000, 'y'),
                                                      "\xC3\xA4"};
      const std::string& text = kTexts[n % kTexts.size()];
      return list ? r.AddString(message, field, text) : r.SetString(message, field, text);
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      Message* inner = list ? r.AddMessage(message, field) : r.MutableMessage(message, field);
      const auto& type = *inner->GetDescriptor();
      for (int i = 0; i < type.field_count(); ++i) {
        const bool deeper = type.field(i)->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
        if (!deeper && random.OneIn(2)) SetRandom(inner, type.field(i), random);
      }
      return;
    }
    default:
      return;
  }
}

TEST_P(MethodChecksTest, RequestsThatMakeNoSenseGetAnAnswerOrAnErrorThatSaysWhy) {
  test::RandomSource random;
  for (int round = 0; round < 100; ++round) {
    const auto request = Valid();
    const int spoilt = 1 + static_cast<int>(random.Below(3));
    for (int i = 0; i < spoilt; ++i) {
      Message* target = request.get();
      const FieldDescriptor* resource = ResourceField(*target->GetDescriptor());
      if (resource != nullptr && random.OneIn(2)) {
        target = target->GetReflection()->MutableMessage(target, resource);
      }
      const int count = target->GetDescriptor()->field_count();
      if (count == 0) continue;
      SetRandom(target,
                target->GetDescriptor()->field(
                    static_cast<int>(random.Below(static_cast<uint64_t>(count)))),
                random);
    }
    if (method_.validate_only != nullptr) SetFlag(request.get(), method_.validate_only);
    // Otherwise it would wait for the deadline, or for what never comes.
    if (GetParam().waits && method_.descriptor->server_streaming()) {
      request->GetReflection()->SetBool(
          request.get(), request->GetDescriptor()->FindFieldByName("send_initial"), true);
    }
    const absl::Status status = Invoke(method_, *request).status;
    if (status.ok()) continue;
    EXPECT_FALSE(status.message().empty());
    EXPECT_NE(ReasonIn(status), "") << request->ShortDebugString();
    EXPECT_FALSE(absl::IsInternal(status) || absl::IsUnknown(status))
        << status << "\n"
        << request->ShortDebugString();
  }
}

TEST_P(MethodChecksTest, BytesThatAreNoRequestDoNoHarm) {
  test::RandomSource random;
  const std::map<std::string, std::string> before = Everything();
  for (int round = 0; round < 100; ++round) {
    std::string bytes;
    for (uint64_t i = random.Below(40); i > 0; --i) bytes += static_cast<char>(random.Next());
    if (Valid()->ParseFromString(bytes)) continue;  // it is one
    EXPECT_FALSE(InvokeBytes(method_, bytes).status.ok());
  }
  EXPECT_EQ(Everything(), before);
}

INSTANTIATE_TEST_SUITE_P(All, MethodChecksTest, testing::ValuesIn(MethodCases()), CaseName);

}  // namespace
}  // namespace gabion::service
