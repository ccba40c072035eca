"""Every rule of the house can fail: each gets a small tree that breaks it, and one next to it that does not."""

import inspect
import unittest

import cpp
import rules

HEADER = "#pragma once\n"


def found(rule, files):
    """(path, line) of what `rule` finds in a tree of `files`."""
    return [(f.path, f.line) for f in rule(rules.Tree(files))]


class LayoutTest(unittest.TestCase):
    def test_top_level_entry_outside_of_the_layout_is_found(self):
        self.assertEqual(found(rules.top_level, {"notes.md": "", "engine/a.h": "", ".gitignore": ""}), [("notes.md", 1)])

    def test_file_of_501_lines_is_found_and_of_500_is_not(self):
        self.assertEqual(found(rules.file_lines, {"engine/a.cc": "\n" * 501, "engine/b.cc": "\n" * 500,
                                                  "tests/run.sh": "\n" * 501}),
                         [("engine/a.cc", 501), ("tests/run.sh", 501)])

    def test_line_of_101_columns_is_found_and_of_100_is_not(self):
        self.assertEqual(found(rules.columns, {"engine/a.h": "x" * 100 + "\n" + "é" * 101}), [("engine/a.h", 2)])

    def test_header_without_pragma_once_is_found_even_if_a_comment_has_it(self):
        self.assertEqual(found(rules.pragma_once, {"a.h": "// #pragma once\nint x;\n", "b.h": "// What.\n" + HEADER}),
                         [("a.h", 1)])

    def test_source_that_no_cmake_file_names_is_found(self):
        files = {"tests/a/CMakeLists.txt": "gabion_test(x_test SRCS x_test.cc)", "tests/a/x_test.cc": "",
                 "tests/a/y_test.cc": "", "tests/a/b/x_test.cc": "", "tests/a/z_test.py": ""}
        self.assertEqual(found(rules.sources_are_built, files),
                         [("tests/a/b/x_test.cc", 1), ("tests/a/y_test.cc", 1), ("tests/a/z_test.py", 1)])

    def test_source_that_a_loop_names_is_built(self):
        files = {"engine/CMakeLists.txt": "foreach(name a b)\n  gabion_test(${name}_test SRCS ${name}_test.cc)\nendforeach()",
                 "engine/b_test.cc": "", "engine/c_test.cc": ""}
        self.assertEqual(found(rules.sources_are_built, files), [("engine/c_test.cc", 1)])

    def test_unfinished_work_and_places_of_one_machine_are_found(self):
        bad = ["TO" "DO", "FIX" "ME: later", "/wor" "k/x", "see issue" " #12"]
        for text in bad:
            self.assertEqual(found(rules.words, {"a.md": "fine\n" + text}), [("a.md", 2)], text)
        self.assertEqual(found(rules.words, {"a.md": "a network/workload issue; TODOS Santos"}), [])


class FunctionLinesTest(unittest.TestCase):
    def lines(self, text, path="engine/a.cc"):
        return [line for _, line in found(rules.function_lines, {path: text})]

    def body(self, lines):
        return "\n" * (lines - 1)

    def test_function_of_71_lines_is_found_and_of_70_is_not(self):
        self.assertEqual(self.lines("void F() {" + self.body(71) + "}\nvoid G() {" + self.body(70) + "}\n"), [1])

    def test_signature_counts(self):
        self.assertEqual(self.lines("int F(int a,\n      int b) {" + self.body(70) + "}\n"), [1])

    def test_methods_in_classes_in_namespaces_are_functions(self):
        self.assertEqual(self.lines("namespace a::b {\nclass X final : public Y<int> {\n public:\n"
                                    "  Task<int> F() const override {" + self.body(71) + "}\n};\n}\n"), [4])

    def test_class_and_namespace_may_be_long(self):
        self.assertEqual(self.lines("namespace a {\nstruct X {\n  int F() { return 1; }" + self.body(200) + "};\n}\n"), [])

    def test_member_initializers_in_braces_are_part_of_the_constructor(self):
        self.assertEqual(self.lines("X::X() : a_{1}, b_{F(2)} {" + self.body(71) + "}\n"), [1])
        self.assertEqual(self.lines("X::X() : a_{1}, b_{2} {\n}\nint y;" + self.body(80)), [])

    def test_macro_bodies_tests_and_operators_are_functions(self):
        self.assertEqual(self.lines("TEST(A, B) {" + self.body(71) + "}\n"), [1])
        self.assertEqual(self.lines("bool operator==(const A& a, const A& b) {" + self.body(71) + "}\n"), [1])
        self.assertEqual(self.lines("template <typename T>\nvoid F(T t = {}) requires Big<T> {" + self.body(70) + "}\n"),
                         [1])

    def test_tables_may_be_long(self):
        self.assertEqual(self.lines("const Case kCases[] = {\n {1, F(2)}," + self.body(90) + "};\n"), [])
        self.assertEqual(self.lines("constexpr std::array<int, sizeof(int)> kTable{" + self.body(90) + "};\n"), [])

    def test_braces_in_literals_comments_and_macros_do_not_count(self):
        text = ("void F() {\n  Use(\"}{\"); Use('{'); /* { */ // {\n  Use(R\"x({{)x\");\n  int n = 1'000;\n}\n"
                "#define M do { \\\n  {\nvoid G() {\n}\n")
        self.assertEqual(self.lines(text + self.body(80)), [])
        self.assertEqual([s.kind for s in cpp.scopes(cpp.without_directives(cpp.strip(text)))], ["function"] * 2)

    def test_python_functions_count(self):
        self.assertEqual(self.lines("def f():\n" + "    x = 1\n" * 70, "tests/a.py"), [1])
        self.assertEqual(self.lines("def f():\n" + "    x = 1\n" * 69, "tests/a.py"), [])


class ForbiddenInEngineTest(unittest.TestCase):
    BAD = ["throw 1;", "std::mutex m;", "std::shared_mutex m;", "std::thread t;", "std::jthread t;",
           "std::shared_ptr<int> p;", "auto p = std::make_shared<int>(1);", "std::function<void()> f;",
           "std::this_thread::sleep_for(d);", "usleep(1);", "sleep(1);", "std::chrono::system_clock::now();",
           "clock_gettime(CLOCK_REALTIME, &t);", "absl::Mutex m;", "std::condition_variable c;"]

    def test_each_is_found_in_the_engine_only(self):
        for code in self.BAD:
            self.assertEqual(found(rules.forbidden_in_engine, {"engine/a/b.cc": "\n" + code}), [("engine/a/b.cc", 2)], code)
            self.assertEqual(found(rules.forbidden_in_engine, {"service/b.cc": code}), [], code)

    def test_comments_strings_and_longer_names_are_fine(self):
        code = '// throw std::mutex\nauto s = "std::function"; int throws; PrepareToSleep(1); std::thread::id x;'
        self.assertEqual(found(rules.forbidden_in_engine, {"engine/a.cc": code}), [])


class DependenciesTest(unittest.TestCase):
    def verdict(self, path, included):
        files = {path: f'#include "{included}"\n', included: ""}
        return len(found(rules.dependencies, files)) == 0

    def test_table(self):
        table = [
            ("engine/base/a.h", "engine/base/b.h", True),
            ("engine/base/a.h", "engine/runtime/task.h", False),
            ("engine/runtime/a.h", "engine/base/b.h", True),
            ("engine/runtime/a.h", "engine/block/node.h", False),
            ("engine/io/a.h", "engine/block/node.h", False),
            ("engine/block/a.h", "engine/runtime/task.h", True),
            ("engine/block/a.h", "engine/runtime/reactor.h", False),
            ("engine/block/a.h", "engine/io/file.h", False),
            ("engine/filters/a.cc", "engine/filters/a.h", True),
            ("engine/filters/a.cc", "engine/filters/b.h", False),
            ("engine/filters/a.cc", "engine/filters/filter.h", True),
            ("engine/filters/a.cc", "engine/filters/partitions/b.h", True),
            ("engine/filters/partitions/a.cc", "engine/filters/filter.h", False),
            ("engine/filters/partitions/a.cc", "engine/block/node.h", False),
            ("engine/filters/a.cc", "engine/formats/raw/raw_node.h", False),
            ("engine/formats/raw/a.cc", "engine/io/file.h", True),
            ("engine/formats/raw/a.cc", "engine/io/ring.h", False),
            ("engine/nbd/protocol/a.cc", "engine/runtime/task.h", False),
            ("engine/nbd/server/a.cc", "engine/nbd/protocol/codec.h", True),
            ("engine/nbd/server/a.cc", "engine/nbd/client/client_node.h", False),
            ("engine/nbd/server/a.cc", "engine/filters/a.h", False),
            ("engine/jobs/a.cc", "engine/nbd/protocol/codec.h", False),
            ("engine/engine.cc", "engine/nbd/server/listener.h", True),
            ("engine/engine.cc", "service/config.h", False),
            ("engine/cellar/a.cc", "engine/base/b.h", False),
            ("service/api/a.cc", "service/domain/b.h", True),
            ("service/domain/a.cc", "engine/engine.h", True),
            ("service/domain/a.cc", "engine/filters/throttle.h", True),
            ("service/domain/a.cc", "engine/block/node.h", False),
            ("service/domain/a.cc", "service/ctl/call.h", False),
            ("service/ctl/a.cc", "service/ctl/b.h", True),
            ("service/ctl/a.cc", "engine/engine.h", False),
            ("tests/engine/a_test.cc", "engine/nbd/server/session.h", True),
            ("engine/base/a.h", "gabion/v1/image.pb.h", False),
            ("engine/engine.cc", "grpcpp/grpcpp.h", False),
            ("service/api/a.cc", "gabion/v1/image.pb.h", True),
            ("engine/runtime/reactor.cc", "asio.hpp", True),
            ("engine/runtime/shard.cc", "asio/post.hpp", False),
            ("engine/io/ring.cc", "liburing.h", True),
            ("engine/io/uring_file.cc", "liburing.h", False),
            ("engine/nbd/protocol/a.cc", "sys/socket.h", False),
            ("engine/block/a.cc", "unistd.h", False),
            ("engine/io/a.cc", "sys/socket.h", True),
        ]
        for path, included, allowed in table:
            self.assertEqual(self.verdict(path, included), allowed, f"{path} -> {included}")

    def test_include_of_no_file_is_found(self):
        self.assertEqual(found(rules.dependencies, {"engine/base/a.h": '#include "engine/base/gone.h"\n'}),
                         [("engine/base/a.h", 1)])

    def test_include_in_a_comment_is_none(self):
        self.assertEqual(found(rules.dependencies, {"engine/base/a.h": '// #include "engine/io/b.h"\n'}), [])

    def test_link_lines_follow_the_table(self):
        files = {"engine/base/CMakeLists.txt": "gabion_library(gabion_base SRCS a.cc)\n",
                 "engine/io/CMakeLists.txt": "gabion_library(gabion_io DEPS gabion_base)\n",
                 "engine/nbd/protocol/CMakeLists.txt": "\ngabion_library(gabion_nbd\n DEPS gabion_base gabion_io)\n",
                 "engine/block/CMakeLists.txt": "gabion_library(gabion_block DEPS gRPC::grpc++)\n",
                 "service/CMakeLists.txt": "gabion_library(gabion_daemon DEPS gabion_io gRPC::grpc++)\n"}
        self.assertEqual(found(rules.link_lines, files),
                         [("engine/block/CMakeLists.txt", 1), ("engine/nbd/protocol/CMakeLists.txt", 2)])


class ClassCommentTest(unittest.TestCase):
    def lines(self, text):
        return [line for _, line in found(rules.class_comments, {"engine/a.h": HEADER + text})]

    def test_class_without_comment_is_found(self):
        self.assertEqual(self.lines("class X {};\n"), [2])
        self.assertEqual(self.lines("namespace gabion {\n\nclass X final : public Y {};\n}\n"), [4])
        self.assertEqual(self.lines("// About X.\n\nclass X {};\n"), [4])
        self.assertEqual(self.lines("template <typename T>\nclass [[nodiscard]] X {};\n"), [2])

    def test_comment_in_front_of_class_or_template_will_do(self):
        self.assertEqual(self.lines("// Owned by its caller.\nclass X {\n public:\n  class Y {};\n};\n"), [])
        self.assertEqual(self.lines("// Owned by its caller.\ntemplate <typename T>\nclass X {};\n"), [])

    def test_declarations_enums_structs_and_internals_need_none(self):
        self.assertEqual(self.lines("class X;\nenum class E { kA };\nstruct S {};\nfriend class Z;\n"), [])
        self.assertEqual(self.lines("namespace gabion::internal {\nclass X {};\n}\n"), [])


class ExceptionsTest(unittest.TestCase):
    TREE = rules.Tree({"engine/a.h": HEADER + "std::mutex m;\n"})

    def test_exception_covers_its_file_and_rule_only(self):
        self.assertEqual(rules.check(self.TREE, {("engine/a.h", "mutex"): "held for one push"}), [])
        self.assertEqual(len(rules.check(self.TREE, {("engine/b.h", "mutex"): "held for one push"})), 2)

    def test_exception_that_covers_nothing_is_found(self):
        [finding] = rules.check(self.TREE, {("engine/a.h", "mutex"): "held for one push",
                                            ("engine/a.h", "throw"): "no reason at all"})
        self.assertEqual((finding.path, finding.rule), ("engine/a.h", "exceptions"))

    def test_exception_without_reason_is_found(self):
        self.assertEqual(len(rules.check(self.TREE, {("engine/a.h", "mutex"): ""})), 1)

    def test_every_rule_is_run(self):
        written = [f for f in vars(rules).values()
                   if inspect.isgeneratorfunction(f) and list(inspect.signature(f).parameters) == ["tree"]]
        self.assertEqual(rules.RULES, written)


if __name__ == "__main__":
    unittest.main()
