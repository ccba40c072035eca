#include "service/domain/export_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

v1::Export Named(const std::string& nbd_name, v1::Access::Transport transport) {
  v1::Export exported;
  exported.set_nbd_name(nbd_name);
  exported.mutable_access()->set_transport(transport);
  return exported;
}

TEST(ExportSpecTest, EverythingButUnreservedCharactersIsEncoded) {
  EXPECT_EQ(PercentEncode("aZ09-._~", ""), "aZ09-._~");
  EXPECT_EQ(PercentEncode("a b/?#%\xff", ""), "a%20b%2F%3F%23%25%FF");
  EXPECT_EQ(PercentEncode("/run/x y", "/"), "/run/x%20y");
}

TEST(ExportSpecTest, TcpIsNamedOnlyWhereItIsAskedForAndOn) {
  engine::EngineInfo engine;
  engine.nbd_unix_path = "/s";
  engine.nbd_tcp_address = "[::1]:10809";
  EXPECT_THAT(UrisOf(Named("e", v1::Access::TRANSPORT_UNSPECIFIED), engine),
              ElementsAre("nbd+unix:///e?socket=/s"));
  EXPECT_THAT(UrisOf(Named("e", v1::Access::TRANSPORT_PLAINTEXT_TCP), engine),
              ElementsAre("nbd+unix:///e?socket=/s", "nbd://[::1]:10809/e"));
  EXPECT_THAT(UrisOf(Named("e", v1::Access::TRANSPORT_PLAINTEXT_TCP), {}), IsEmpty());
}

// A value that is added to an enum of the API must be given a meaning here.
TEST(ExportSpecTest, EveryValueOfThePolicyReachesTheEngine) {
  v1::Export exported;
  v1::BlockSizePolicy& policy = *exported.mutable_block_sizes();
  for (int i = 0; i < v1::BlockSizePolicy::Tail_ARRAYSIZE; ++i) {
    policy.set_tail(static_cast<v1::BlockSizePolicy::Tail>(i));
    EXPECT_EQ(static_cast<int>(SpecOf(exported, {}).block_sizes.tail), i);
  }
  for (int i = 0; i < v1::BlockSizePolicy::SilentClients_ARRAYSIZE; ++i) {
    policy.set_silent_clients(static_cast<v1::BlockSizePolicy::SilentClients>(i));
    EXPECT_EQ(static_cast<int>(SpecOf(exported, {}).block_sizes.silent_clients), i);
  }
  for (int i = 0; i < v1::BlockSizePolicy::UnalignedRequests_ARRAYSIZE; ++i) {
    policy.set_unaligned_requests(static_cast<v1::BlockSizePolicy::UnalignedRequests>(i));
    EXPECT_EQ(static_cast<int>(SpecOf(exported, {}).block_sizes.unaligned_requests), i);
  }
}

}  // namespace
}  // namespace gabion::service
