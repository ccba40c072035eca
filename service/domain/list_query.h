// What a List request asks for, whatever it lists.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "service/domain/page_token.h"
#include "service/list_filter.h"
#include "service/list_order.h"

namespace gabion::service {

// The parameters of one list call: read off the request by the names of its fields, checked. A
// value; immutable.
class ListQuery {
 public:
  // `resource`: what is listed. FILTER_EXPRESSION_INVALID, FIELD_INVALID for order_by,
  // PAGE_TOKEN_INVALID: a token belongs to a request that is the same but for page_size.
  static absl::StatusOr<ListQuery> Parse(const google::protobuf::Message& request,
                                         const google::protobuf::Descriptor* resource,
                                         const PageTokens& tokens);

  const ListFilter& filter() const { return filter_; }
  const ListOrder& order() const { return order_; }
  std::size_t page_size() const { return page_size_; }
  // Where this page goes on: what was sealed; empty on the first page.
  const std::string& after() const { return after_; }
  std::string Seal(std::string_view last) const { return tokens_->Seal(text_, last); }

 private:
  ListQuery(const PageTokens& tokens, ListFilter filter, ListOrder order);

  const PageTokens* tokens_;
  std::string text_;  // all that pages have in common
  ListFilter filter_;
  ListOrder order_;
  std::size_t page_size_ = 0;
  std::string after_;
};

}  // namespace gabion::service
