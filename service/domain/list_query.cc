#include "service/domain/list_query.h"

#include <memory>
#include <utility>

#include "engine/base/status_macros.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string TextField(const Message& request, const char* name) {
  const FieldDescriptor* field = request.GetDescriptor()->FindFieldByName(name);
  return field == nullptr ? std::string() : request.GetReflection()->GetString(request, field);
}

// The request without what may change from page to page.
std::string WhatIsListed(const Message& request) {
  std::unique_ptr<Message> copy(request.New());
  copy->CopyFrom(request);
  for (const char* name : {"page_size", "page_token", "read_mask"}) {
    const FieldDescriptor* field = request.GetDescriptor()->FindFieldByName(name);
    if (field != nullptr) copy->GetReflection()->ClearField(copy.get(), field);
  }
  return request.GetDescriptor()->full_name() + " " + copy->SerializeAsString();
}

}  // namespace

ListQuery::ListQuery(const PageTokens& tokens, ListFilter filter, ListOrder order)
    : tokens_(&tokens), filter_(std::move(filter)), order_(std::move(order)) {}

absl::StatusOr<ListQuery> ListQuery::Parse(const Message& request,
                                           const google::protobuf::Descriptor* resource,
                                           const PageTokens& tokens) {
  ASSIGN_OR_RETURN(ListFilter filter, ParseListFilter(resource, TextField(request, "filter")));
  ASSIGN_OR_RETURN(ListOrder order, ParseOrderBy(resource, TextField(request, "order_by")));
  ListQuery query(tokens, std::move(filter), std::move(order));
  const FieldDescriptor* size = request.GetDescriptor()->FindFieldByName("page_size");
  const int asked = request.GetReflection()->GetInt32(request, size);
  if (asked < 0) {
    constexpr std::string_view kMessage = "must be at least 0";
    return Error(reason::kPageSizeNegative, "The page size is negative.")
        .Metadata("value", std::to_string(asked))
        .Metadata("allowed", "at least 0")
        .Field("page_size", kMessage);
  }
  query.page_size_ = static_cast<std::size_t>(PageSize(asked));
  query.text_ = WhatIsListed(request);
  ASSIGN_OR_RETURN(query.after_, tokens.Open(query.text_, TextField(request, "page_token")));
  return query;
}

}  // namespace gabion::service
