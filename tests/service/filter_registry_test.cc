#include "service/filter_registry.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>

#include "google/protobuf/text_format.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kEnd = ~uint64_t{0};

v1::FilterSpec Parse(const std::string& text) {
  v1::FilterSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return spec;
}

// Images by their names; `top` stands on `middle`, which stands on `bottom`.
FilterPlace Place() {
  FilterPlace place{.path = "spec", .source = "images/top"};
  place.find_image = [](const std::string& name,
                        const std::string& field) -> absl::StatusOr<engine::ImageSpec> {
    if (name == "images/none") return Error(reason::kResourceNotFound, "none").Field(field, "none");
    engine::ImageSpec image;
    image.name = name;
    if (name != "images/top") return image;
    image.backing.resize(2);
    image.backing[0].name = "images/middle";
    image.backing[1].name = "images/bottom";
    return image;
  };
  return place;
}

template <typename Options>
Options OptionsOf(const std::string& text) {
  const v1::FilterSpec spec = Parse(text);
  EXPECT_TRUE(CheckFilterSpec(spec, "spec", true).ok()) << text;
  return std::get<Options>(*ResolveFilter(spec, Place()));
}

// The field that is at fault.
std::string Fault(const std::string& text) {
  const google::rpc::ErrorInfo info = InfoOf(CheckFilterSpec(Parse(text), "spec", true));
  return info.reason() + " " + info.metadata().at("field");
}

TEST(FilterRegistryTest, EveryKindOfTheApiHasOneLine) {
  const auto* oneof = v1::FilterSpec::descriptor()->FindOneofByName("kind");
  std::set<int> api;
  for (int i = 0; i < oneof->field_count(); ++i) api.insert(oneof->field(i)->number());
  std::multiset<int> lines;
  for (const FilterKind& kind : FilterKinds()) lines.insert(kind.kind);
  EXPECT_EQ(lines, std::multiset<int>(api.begin(), api.end()));
}

TEST(FilterRegistryTest, EveryKindBecomesAnotherFilter) {
  const auto* oneof = v1::FilterSpec::descriptor()->FindOneofByName("kind");
  std::set<std::size_t> alternatives;
  for (int i = 0; i < oneof->field_count(); ++i) {
    v1::FilterSpec spec;
    spec.GetReflection()->MutableMessage(&spec, oneof->field(i));
    ASSERT_NE(FindFilterKind(spec), nullptr) << oneof->field(i)->name();
    alternatives.insert(ResolveFilter(spec, Place())->index());
    EXPECT_EQ(FilterKindName(spec), oneof->field(i)->name());
  }
  EXPECT_EQ(alternatives.size(), std::variant_size_v<engine::FilterOptions>);
}

TEST(FilterRegistryTest, ThrottlesAndFaultsShareTheirStateAndOnlyFaultsMakeTrouble) {
  for (const FilterKind& kind : FilterKinds()) {
    const bool fault = kind.kind == v1::FilterSpec::kFault;
    EXPECT_EQ(kind.injects_faults, fault);
    EXPECT_EQ(kind.shares_state, fault || kind.kind == v1::FilterSpec::kThrottle);
  }
}

TEST(FilterRegistryTest, Throttle) {
  filters::ThrottleOptions expected;
  expected.read_bytes = {1, 2, milliseconds(1500)};
  expected.write_bytes.per_second = 3;
  expected.total_bytes.per_second = 4;
  expected.read_operations.per_second = 5;
  expected.write_operations.per_second = 6;
  expected.total_operations.per_second = 7;
  expected.operation_unit = 4096;
  EXPECT_EQ(
      OptionsOf<filters::ThrottleOptions>(
          "throttle { read_bytes { average_per_second: 1 burst_per_second: 2 burst_length { "
          "seconds: 1 nanos: 500000000 } } write_bytes { average_per_second: 3 } total_bytes { "
          "average_per_second: 4 } read_ops { average_per_second: 5 } write_ops { "
          "average_per_second: 6 } total_ops { average_per_second: 7 } iops_unit_bytes: 4096 }"),
      expected);
  EXPECT_EQ(OptionsOf<filters::ThrottleOptions>("throttle {}"), filters::ThrottleOptions());
  EXPECT_EQ(Fault("throttle { total_ops { burst_per_second: 2 } }"),
            "FILTER_PARAMETERS_INVALID spec.throttle.total_ops.burst_per_second");
}

TEST(FilterRegistryTest, Align) {
  EXPECT_EQ(OptionsOf<filters::AlignOptions>("align {}"), filters::AlignOptions());
  EXPECT_EQ(
      OptionsOf<filters::AlignOptions>("align { alignment_bytes: 512 max_transfer_bytes: 8192 }"),
      (filters::AlignOptions{512, 8192}));
}

TEST(FilterRegistryTest, CopyOnRead) {
  EXPECT_EQ(OptionsOf<filters::CopyOnReadOptions>("copy_on_read {}"), filters::CopyOnReadOptions());
  EXPECT_EQ(OptionsOf<filters::CopyOnReadOptions>(
                "copy_on_read { bottom_image: 'images/middle' granularity_bytes: 4096 }"),
            (filters::CopyOnReadOptions{2, 4096}));
  EXPECT_EQ(OptionsOf<filters::CopyOnReadOptions>("copy_on_read { bottom_image: 'images/bottom' }")
                .bottom_layer,
            3u);
  for (const char* name : {"images/top", "images/other"}) {
    v1::FilterSpec spec;
    spec.mutable_copy_on_read()->set_bottom_image(name);
    const google::rpc::ErrorInfo info = InfoOf(ResolveFilter(spec, Place()).status());
    EXPECT_EQ(info.reason(), "FILTER_PARAMETERS_INVALID");
    EXPECT_EQ(info.metadata().at("field"), "spec.copy_on_read.bottom_image");
  }
}

TEST(FilterRegistryTest, Cow) {
  EXPECT_EQ(OptionsOf<engine::CowEntry>("cow {}"), engine::CowEntry());
  EXPECT_EQ(OptionsOf<engine::CowEntry>("cow { memory {} }"), engine::CowEntry());
  EXPECT_EQ(OptionsOf<engine::CowEntry>("cow { block_size_bytes: 512 memory { max_bytes: 8192 } }"),
            (engine::CowEntry{.options = {512}, .max_memory = 8192}));
  EXPECT_EQ(OptionsOf<engine::CowEntry>("cow { file {} }"), engine::CowEntry{.in_file = true});
  const auto kept = OptionsOf<engine::CowEntry>("cow { image { image: 'images/a' } }");
  ASSERT_TRUE(kept.image.has_value());
  EXPECT_EQ(kept.image->name, "images/a");
  EXPECT_EQ(Fault("cow { block_size_bytes: 4096 image { image: 'images/a' } }"),
            "FILTER_PARAMETERS_INVALID spec.cow.block_size_bytes");
  const v1::FilterSpec none = Parse("cow { image { image: 'images/none' } }");
  EXPECT_EQ(InfoOf(ResolveFilter(none, Place()).status()).metadata().at("field"),
            "spec.cow.image.image");
}

TEST(FilterRegistryTest, ImagesThatFiltersName) {
  const auto told = [](const char* text) {
    const NamedImage image = ImageNamedBy(Parse(text));
    return absl::StrCat(image.name, image.is_written ? " written" : "");
  };
  EXPECT_EQ(told("cow { image { image: 'images/a' } }"), "images/a written");
  EXPECT_EQ(told("verify { reference_image: 'images/a' }"), "images/a written");
  EXPECT_EQ(told("verify { hash_tree { image: 'images/a' } }"), "images/a");
  for (const char* text : {"cow {}", "cow { file {} }", "stats {}", "cache {}",
                           "copy_on_read { bottom_image: 'images/a' }"}) {
    EXPECT_EQ(ImageNamedBy(Parse(text)).name, "") << text;
  }
}

TEST(FilterRegistryTest, Cache) {
  EXPECT_EQ(OptionsOf<engine::CacheEntry>("cache {}"), engine::CacheEntry());
  engine::CacheEntry expected{.in_file = true};
  expected.options = {.mode = filters::CacheOptions::Mode::kWriteback,
                      .block_size = 4096,
                      .size = 8192,
                      .cache_on_read = false,
                      .dirty_high_percent = 20,
                      .dirty_low_percent = 10};
  EXPECT_EQ(OptionsOf<engine::CacheEntry>(
                "cache { mode: MODE_WRITEBACK block_size_bytes: 4096 size_bytes: 8192 "
                "no_cache_on_read: true dirty_high_percent: 20 dirty_low_percent: 10 file {} }"),
            expected);
  const auto low = OptionsOf<engine::CacheEntry>("cache { dirty_high_percent: 20 }").options;
  EXPECT_EQ(low.dirty_low_percent, 20u);
  const auto high = OptionsOf<engine::CacheEntry>("cache { dirty_low_percent: 90 }").options;
  EXPECT_EQ(high.dirty_high_percent, 90u);
  EXPECT_EQ(Fault("cache { size_bytes: 4096 }"), "FILTER_PARAMETERS_INVALID spec.cache.size_bytes");
  EXPECT_EQ(Fault("cache { memory { max_bytes: 65536 } }"),
            "FILTER_PARAMETERS_INVALID spec.cache.memory.max_bytes");
}

TEST(FilterRegistryTest, Verify) {
  const auto plain = OptionsOf<engine::VerifyEntry>("verify { reference_image: 'images/a' }");
  EXPECT_EQ(plain.reference.name, "images/a");
  EXPECT_EQ(plain.options, filters::VerifyOptions());
  const auto report = OptionsOf<engine::VerifyEntry>(
      "verify { reference_image: 'images/a' on_mismatch: ON_MISMATCH_REPORT }");
  EXPECT_EQ(report.options.on_mismatch, filters::VerifyOptions::OnMismatch::kReport);
  EXPECT_FALSE(report.tree.has_value());
  const std::string digest = "00ffAB" + std::string(58, '1');
  const auto tree = OptionsOf<engine::VerifyEntry>(absl::StrCat(
      "verify { hash_tree { image: 'images/a' root_digest: '", digest, "' size_bytes: 7 } }"));
  EXPECT_EQ(tree.reference.name, "images/a");
  ASSERT_TRUE(tree.tree.has_value());
  EXPECT_EQ(tree.tree->digest, std::string("\0\xff\xab", 3) + std::string(29, '\x11'));
  EXPECT_EQ(tree.tree->size, 7u);
  EXPECT_EQ(Fault("verify {}"), "FILTER_PARAMETERS_INVALID spec.verify");
  EXPECT_EQ(Fault(absl::StrCat("verify { reference_image: 'images/a' hash_tree { image: "
                               "'images/a' root_digest: '",
                               digest, "' } }")),
            "FILTER_PARAMETERS_INVALID spec.verify");
  for (const std::string& wrong : {digest.substr(1), digest + "00", std::string(64, 'g')}) {
    EXPECT_EQ(Fault(absl::StrCat("verify { hash_tree { image: 'images/a' root_digest: '", wrong,
                                 "' } }")),
              "FILTER_PARAMETERS_INVALID spec.verify.hash_tree.root_digest");
  }
  const v1::FilterSpec none = Parse("verify { reference_image: 'images/none' }");
  EXPECT_EQ(InfoOf(ResolveFilter(none, Place()).status()).metadata().at("field"),
            "spec.verify.reference_image");
}

TEST(FilterRegistryTest, Fault) {
  const auto bare = OptionsOf<filters::FaultOptions>("fault { rules {} }");
  ASSERT_EQ(bare.rules.size(), 1u);
  EXPECT_EQ(bare.rules[0], filters::FaultRule());

  const auto options = OptionsOf<filters::FaultOptions>(
      "fault { rules { operations: [FILTER_OPERATION_READ, FILTER_OPERATION_BLOCK_STATUS] "
      "offset_bytes: 10 length_bytes: 20 error: ERROR_ENOSPC probability: 0.5 max_hits: 3 "
      "skip_hits: 4 state: 5 new_state: 6 pass: true } rules { offset_bytes: 7 } "
      "alignment_bytes: 512 max_transfer_bytes: 1 max_write_zeroes_bytes: 2 max_trim_bytes: 3 "
      "seed: 9 }");
  ASSERT_EQ(options.rules.size(), 2u);
  filters::FaultRule expected;
  expected.operations = Bit(filters::Operation::kRead) | Bit(filters::Operation::kBlockStatus);
  expected.range = Range(10, 20);
  expected.error = absl::StatusCode::kResourceExhausted;
  expected.probability = 0.5;
  expected.max_hits = 3;
  expected.skip_hits = 4;
  expected.state = 5;
  expected.new_state = 6;
  expected.pass = true;
  EXPECT_EQ(options.rules[0], expected);
  EXPECT_EQ(options.rules[1].range, Range(7, kEnd - 7));
  EXPECT_EQ(options.alignment, 512u);
  EXPECT_EQ(options.max_transfer, 1u);
  EXPECT_EQ(options.max_zero, 2u);
  EXPECT_EQ(options.max_discard, 3u);
  EXPECT_EQ(options.seed, 9u);
}

TEST(FilterRegistryTest, EveryOperationIsABitOfItsOwn) {
  filters::OperationSet all = 0;
  const auto* operations = v1::FilterOperation_descriptor();
  for (int i = 0; i < operations->value_count(); ++i) {
    if (operations->value(i)->number() == v1::FILTER_OPERATION_UNSPECIFIED) continue;
    const auto options = OptionsOf<filters::FaultOptions>(
        "fault { rules { operations: " + operations->value(i)->name() + " } }");
    const filters::OperationSet one = options.rules[0].operations;
    EXPECT_EQ(one & (one - 1), 0) << operations->value(i)->name();
    EXPECT_EQ(all & one, 0) << operations->value(i)->name();
    all |= one;
  }
  EXPECT_EQ(all, filters::kAllOperations);
}

TEST(FilterRegistryTest, EveryErrorHasACodeOfItsOwn) {
  const std::map<std::string, absl::StatusCode> codes = {
      {"ERROR_UNSPECIFIED", absl::StatusCode::kInternal},
      {"ERROR_EIO", absl::StatusCode::kInternal},
      {"ERROR_EPERM", absl::StatusCode::kPermissionDenied},
      {"ERROR_ENOSPC", absl::StatusCode::kResourceExhausted},
      {"ERROR_EINVAL", absl::StatusCode::kInvalidArgument},
      {"ERROR_ENOTSUP", absl::StatusCode::kUnimplemented},
      {"ERROR_ESHUTDOWN", absl::StatusCode::kUnavailable},
  };
  EXPECT_EQ(codes.size(),
            static_cast<std::size_t>(v1::FaultSpec::Error_descriptor()->value_count()));
  for (const auto& [name, code] : codes) {
    const auto options =
        OptionsOf<filters::FaultOptions>("fault { rules { error: " + name + " } }");
    EXPECT_EQ(options.rules[0].error, code) << name;
  }
}

TEST(FilterRegistryTest, RulesThatCannotBeAreRefused) {
  EXPECT_EQ(Fault("fault { rules {} rules { probability: 1.1 } }"),
            "FILTER_PARAMETERS_INVALID spec.fault.rules[1].probability");
  EXPECT_EQ(Fault("fault { rules { probability: -0.1 } }"),
            "FILTER_PARAMETERS_INVALID spec.fault.rules[0].probability");
  EXPECT_EQ(Fault("fault { rules { probability: nan } }"),
            "FILTER_PARAMETERS_INVALID spec.fault.rules[0].probability");
  EXPECT_EQ(Fault("fault { rules { operations: FILTER_OPERATION_UNSPECIFIED } }"),
            "FILTER_PARAMETERS_INVALID spec.fault.rules[0].operations[0]");
  EXPECT_EQ(Fault("fault { rules { offset_bytes: 1 length_bytes: 18446744073709551615 } }"),
            "FILTER_PARAMETERS_INVALID spec.fault.rules[0].length_bytes");
}

TEST(FilterRegistryTest, Delay) {
  filters::DelayOptions expected;
  expected.read = seconds(1);
  expected.write = milliseconds(2);
  expected.zero = seconds(3);
  expected.discard = seconds(4);
  expected.flush = seconds(5);
  expected.block_status = seconds(6);
  expected.jitter = std::chrono::nanoseconds(7);
  EXPECT_EQ(OptionsOf<filters::DelayOptions>(
                "delay { read { seconds: 1 } write { nanos: 2000000 } write_zeroes { seconds: 3 } "
                "trim { seconds: 4 } flush { seconds: 5 } block_status { seconds: 6 } jitter { "
                "nanos: 7 } }"),
            expected);
}

TEST(FilterRegistryTest, WriteProtect) {
  const auto options = OptionsOf<filters::WriteProtectOptions>(
      "write_protect { ranges { offset_bytes: 5 } ranges { offset_bytes: 1 length_bytes: 2 } "
      "inverted: true }");
  ASSERT_EQ(options.ranges.size(), 2u);
  EXPECT_EQ(options.ranges[0], Range(5, kEnd - 5));
  EXPECT_EQ(options.ranges[1], Range(1, 2));
  EXPECT_TRUE(options.inverted);
  EXPECT_EQ(
      Fault("write_protect { ranges { offset_bytes: 2 length_bytes: 18446744073709551614 } }"),
      "FILTER_PARAMETERS_INVALID spec.write_protect.ranges[0].length_bytes");
}

TEST(FilterRegistryTest, Slice) {
  EXPECT_EQ(OptionsOf<filters::SliceOptions>("slice { partition: 5 }"),
            (filters::SliceOptions{5, {}}));
  EXPECT_EQ(OptionsOf<filters::SliceOptions>("slice { range { offset_bytes: 8 length_bytes: 9 } }"),
            (filters::SliceOptions{0, Range(8, 9)}));
  EXPECT_EQ(OptionsOf<filters::SliceOptions>("slice { range { offset_bytes: 8 } }"),
            (filters::SliceOptions{0, Range(8, 0)}));
  EXPECT_EQ(Fault("slice { range { offset_bytes: 2 length_bytes: 18446744073709551614 } }"),
            "FILTER_PARAMETERS_INVALID spec.slice.range.length_bytes");
}

TEST(FilterRegistryTest, Resize) {
  using Mode = filters::ResizeOptions::Mode;
  EXPECT_EQ(OptionsOf<filters::ResizeOptions>("resize { size_bytes: 7 }"),
            (filters::ResizeOptions{Mode::kSize, 7}));
  EXPECT_EQ(OptionsOf<filters::ResizeOptions>("resize { round_up_bytes: 8 }"),
            (filters::ResizeOptions{Mode::kRoundUp, 8}));
  EXPECT_EQ(OptionsOf<filters::ResizeOptions>("resize { round_down_bytes: 16 }"),
            (filters::ResizeOptions{Mode::kRoundDown, 16}));
}

TEST(FilterRegistryTest, Readahead) {
  EXPECT_EQ(OptionsOf<filters::ReadaheadOptions>("readahead {}").max_window, 2u << 20);
  EXPECT_EQ(OptionsOf<filters::ReadaheadOptions>("readahead { max_window_bytes: 4096 }").max_window,
            4096u);
}

TEST(FilterRegistryTest, Retry) {
  EXPECT_EQ(OptionsOf<filters::RetryOptions>("retry {}"),
            (filters::RetryOptions{5, milliseconds(100), seconds(10), false}));
  EXPECT_EQ(OptionsOf<filters::RetryOptions>(
                "retry { max_retries: 2 initial_backoff { seconds: 1 } max_backoff { seconds: 2 } "
                "retry_no_space: true }"),
            (filters::RetryOptions{2, seconds(1), seconds(2), true}));
  EXPECT_EQ(OptionsOf<filters::RetryOptions>("retry { initial_backoff { seconds: 30 } }"),
            (filters::RetryOptions{5, seconds(30), seconds(30), false}));
  EXPECT_EQ(OptionsOf<filters::RetryOptions>("retry { max_backoff { nanos: 1000000 } }"),
            (filters::RetryOptions{5, milliseconds(1), milliseconds(1), false}));
  EXPECT_EQ(Fault("retry { initial_backoff { seconds: 2 } max_backoff { seconds: 1 } }"),
            "FILTER_PARAMETERS_INVALID spec.retry.max_backoff");
}

TEST(FilterRegistryTest, Log) {
  EXPECT_EQ(OptionsOf<filters::LogOptions>("log {}"), filters::LogOptions());
  EXPECT_EQ(OptionsOf<filters::LogOptions>(
                "log { sample_one_in: 3 slower_than { seconds: 1 } failures_only: true }"),
            (filters::LogOptions{3, seconds(1), true}));
}

TEST(FilterRegistryTest, EveryFeatureIsHiddenByItsOwnField) {
  using Mask = filters::FeatureMaskOptions;
  const std::map<std::string, bool Mask::*> fields = {
      {"hide_trim", &Mask::hide_trim},           {"hide_write_zeroes", &Mask::hide_zero},
      {"hide_fast_zero", &Mask::hide_fast_zero}, {"hide_fua", &Mask::hide_fua},
      {"hide_holes", &Mask::hide_holes},         {"hide_multi_conn", &Mask::hide_multi_conn},
      {"hide_cache", &Mask::hide_cache},
  };
  EXPECT_EQ(fields.size(),
            static_cast<std::size_t>(v1::FeatureMaskSpec::descriptor()->field_count()));
  for (const auto& [name, member] : fields) {
    Mask expected;
    expected.*member = true;
    EXPECT_EQ(OptionsOf<Mask>("feature_mask { " + name + ": true }"), expected) << name;
  }
}

TEST(FilterRegistryTest, WithoutAKindItIsUnknown) {
  EXPECT_EQ(Fault(""), "FILTER_KIND_UNKNOWN spec.kind");
}

TEST(FilterRegistryTest, FaultsAreOffUnlessTheyAreAllowed) {
  const absl::Status refused = CheckFilterSpec(Parse("fault {}"), "spec", false);
  EXPECT_EQ(InfoOf(refused).reason(), "FILTER_KIND_DISABLED");
  EXPECT_EQ(InfoOf(refused).metadata().at("field"), "spec.fault");
  EXPECT_TRUE(CheckFilterSpec(Parse("delay {}"), "spec", false).ok());
}

}  // namespace
}  // namespace gabion::service
