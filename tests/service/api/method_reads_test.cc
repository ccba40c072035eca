// Every method that shows resources: masks, pages, filters and orders.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "google/protobuf/field_mask.pb.h"
#include "tests/service/api/contract_fixture.h"

namespace gabion::service {
namespace {

class MethodReadsTest : public MethodTest {
 protected:
  static void SetMask(Message* request, const FieldDescriptor* field, const std::string& path) {
    google::protobuf::FieldMask mask;
    mask.add_paths(path);
    request->GetReflection()->MutableMessage(request, field)->CopyFrom(mask);
  }
  static void SetPageSize(Message* request, int size) {
    request->GetReflection()->SetInt32(
        request, request->GetDescriptor()->FindFieldByName("page_size"), size);
  }
  static std::string NextPageToken(const Message& response) {
    return response.GetReflection()->GetString(
        response, response.GetDescriptor()->FindFieldByName("next_page_token"));
  }
  // Resources of a List response, or the one that was asked for.
  static std::vector<const Message*> Resources(const Message& response) {
    const FieldDescriptor* list = ResourcesField(*response.GetDescriptor());
    if (list == nullptr) return {&response};
    std::vector<const Message*> resources;
    for (int i = 0; i < response.GetReflection()->FieldSize(response, list); ++i) {
      resources.push_back(&response.GetReflection()->GetRepeatedMessage(response, list, i));
    }
    return resources;
  }
  static std::string NameOf(const Message& resource) {
    return resource.GetReflection()->GetString(resource,
                                               resource.GetDescriptor()->FindFieldByName("name"));
  }
  bool lists() const { return kind_ == MethodKind::kList; }
};

TEST_P(MethodReadsTest, UnknownPathsInMasksAreRefused) {
  const google::protobuf::Descriptor& type = *method_.descriptor->input_type();
  for (const char* name : {"read_mask", "update_mask"}) {
    const FieldDescriptor* field = type.FindFieldByName(name);
    if (field == nullptr) continue;
    for (const char* path : {"nonsense", "name.nonsense", "", ".", "name.", "*.name"}) {
      const auto request = Valid();
      SetMask(request.get(), field, path);
      const absl::Status status = Invoke(method_, *request).status;
      EXPECT_TRUE(Violates(status, name, "FIELD_MASK_INVALID")) << path << ": " << status;
    }
  }
}

TEST_P(MethodReadsTest, AReadMaskLeavesWhatItNames) {
  if (method_.read_mask == nullptr) GTEST_SKIP() << "it has none";
  const auto request = Valid();
  SetMask(request.get(), method_.read_mask, "name");
  const Answer answer = Invoke(method_, *request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  ASSERT_FALSE(Resources(*answer.message).empty());
  for (const Message* resource : Resources(*answer.message)) {
    std::vector<const FieldDescriptor*> set;
    resource->GetReflection()->ListFields(*resource, &set);
    ASSERT_EQ(set.size(), 1u) << resource->ShortDebugString();
    EXPECT_EQ(set[0]->name(), "name");
  }
  SetMask(request.get(), method_.read_mask, "*");
  EXPECT_EQ(Invoke(method_, *request).message->SerializeAsString(),
            Invoke(method_, *Valid()).message->SerializeAsString());
}

TEST_P(MethodReadsTest, PagesShowEverythingOnce) {
  if (!lists()) GTEST_SKIP() << "it lists nothing";
  const Answer whole = Invoke(method_, *Valid());
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  const auto request = Valid();
  SetPageSize(request.get(), 1);
  std::vector<std::string> names;
  do {
    const Answer page = Invoke(method_, *request);
    ASSERT_TRUE(page.status.ok()) << page.status;
    ASSERT_LE(Resources(*page.message).size(), 1u);
    for (const Message* resource : Resources(*page.message)) names.push_back(NameOf(*resource));
    SetText(request.get(), "page_token", NextPageToken(*page.message));
  } while (request->GetReflection()->GetString(
               *request, request->GetDescriptor()->FindFieldByName("page_token")) != "");
  std::vector<std::string> all;
  for (const Message* resource : Resources(*whole.message)) all.push_back(NameOf(*resource));
  EXPECT_GE(all.size(), 2u);
  EXPECT_EQ(names, all);
}

TEST_P(MethodReadsTest, ANegativePageSizeIsRefused) {
  if (!lists()) GTEST_SKIP() << "it lists nothing";
  const auto request = Valid();
  SetPageSize(request.get(), -1);
  const absl::Status status = Invoke(method_, *request).status;
  EXPECT_EQ(ReasonIn(status), "PAGE_SIZE_NEGATIVE");
  EXPECT_TRUE(Violates(status, "page_size", "PAGE_SIZE_NEGATIVE")) << status;
}

TEST_P(MethodReadsTest, PageTokensAreTheServersAndOfTheSameRequest) {
  if (!lists()) GTEST_SKIP() << "it lists nothing";
  const auto request = Valid();
  SetPageSize(request.get(), 1);
  const std::string token = NextPageToken(*Invoke(method_, *request).message);
  ASSERT_NE(token, "");
  std::string forged = token;
  forged[forged.size() / 2] = forged[forged.size() / 2] == 'A' ? 'B' : 'A';
  for (const std::string& text : {std::string("nonsense"), forged, token + "A"}) {
    SetText(request.get(), "page_token", text);
    const absl::Status status = Invoke(method_, *request).status;
    EXPECT_TRUE(Violates(status, "page_token", "PAGE_TOKEN_INVALID")) << text << ": " << status;
  }
  SetText(request.get(), "page_token", token);
  SetPageSize(request.get(), 2);  // may change between pages
  EXPECT_TRUE(Invoke(method_, *request).status.ok());
  SetText(request.get(), "filter", "name:*");
  const absl::Status status = Invoke(method_, *request).status;
  EXPECT_TRUE(Violates(status, "page_token", "PAGE_TOKEN_INVALID")) << status;
}

TEST_P(MethodReadsTest, FiltersThatSayNothingAreRefused) {
  if (!lists()) GTEST_SKIP() << "it lists nothing";
  for (const std::string text : {"name =", "nonsense = 1", "(name = \"a\"", "name = \"a\" AND"}) {
    const auto request = Valid();
    SetText(request.get(), "filter", text);
    const absl::Status status = Invoke(method_, *request).status;
    EXPECT_EQ(ReasonIn(status), "FILTER_EXPRESSION_INVALID") << text << ": " << status;
    EXPECT_TRUE(Violates(status, "filter", "FILTER_EXPRESSION_INVALID")) << text << ": " << status;
  }
}

TEST_P(MethodReadsTest, AFilterLeavesWhatItNames) {
  if (!lists()) GTEST_SKIP() << "it lists nothing";
  const Answer whole = Invoke(method_, *Valid());
  const std::string name = NameOf(*Resources(*whole.message).back());
  const auto request = Valid();
  SetText(request.get(), "filter", "name = \"" + name + "\"");
  const Answer one = Invoke(method_, *request);
  ASSERT_TRUE(one.status.ok()) << one.status;
  ASSERT_EQ(Resources(*one.message).size(), 1u);
  EXPECT_EQ(NameOf(*Resources(*one.message)[0]), name);
}

TEST_P(MethodReadsTest, OrdersAreKept) {
  if (!lists() || !HasOurMessages(*method_.descriptor)) GTEST_SKIP() << "it has no order";
  for (const std::string text : {"nonsense", "name up", "name,,name", "name.x"}) {
    const auto request = Valid();
    SetText(request.get(), "order_by", text);
    const absl::Status status = Invoke(method_, *request).status;
    EXPECT_TRUE(Violates(status, "order_by", "FIELD_INVALID")) << text << ": " << status;
  }
  const Answer whole = Invoke(method_, *Valid());
  std::vector<std::string> reversed;
  for (const Message* resource : Resources(*whole.message)) {
    reversed.insert(reversed.begin(), NameOf(*resource));
  }
  const auto request = Valid();
  SetText(request.get(), "order_by", "name desc");
  const Answer answer = Invoke(method_, *request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  std::vector<std::string> names;
  for (const Message* resource : Resources(*answer.message)) names.push_back(NameOf(*resource));
  EXPECT_EQ(names, reversed);
}

INSTANTIATE_TEST_SUITE_P(All, MethodReadsTest, testing::ValuesIn(MethodCases()), CaseName);

}  // namespace
}  // namespace gabion::service
