"""session.file_system: every call, sizes of many chunks, any bytes, what is refused."""
import threading
import time

import pytest


@pytest.fixture
def place(session, request):
    path = f"/tmp/{request.node.name[:60].replace('[', '-').replace(']', '')}"
    assert session.file_system.create_directory(path).success
    return path


def test_write_and_read(session, place):
    files = session.file_system
    for content in ("", "one line", "lines\n\nand\ttabs\r\n", "ä 漢字 🎉", " leading and trailing \n"):
        assert files.write_file(f"{place}/f", content).success
        result = files.read_file(f"{place}/f")
        assert result.success and result.content == content


def test_modes(session, place):
    files = session.file_system
    assert files.write_file(f"{place}/f", "a", mode="append").success  # makes it
    assert files.write_file(f"{place}/f", "b", mode="append").success
    assert files.read_file(f"{place}/f").content == "ab"
    assert files.write_file(f"{place}/f", "c", mode="overwrite").success
    assert files.read_file(f"{place}/f").content == "c"
    assert not files.write_file(f"{place}/f", "d", mode="sideways").success
    assert files.write_file(f"{place}/new/deep/f", "x").success


@pytest.mark.parametrize("size", [51_199, 51_200, 51_201, 60_000, 153_600, 300_000])
def test_sizes_about_the_chunk(session, place, size):
    content = ("0123456789ä漢🎉" * (size // 10))[:size]
    assert session.file_system.write_file(f"{place}/f", content).success
    assert session.file_system.read_file(f"{place}/f").content == content


def test_bytes_that_are_no_text(session, place):
    code = f"open('{place}/b', 'wb').write(bytes(range(256)) * 700)"
    assert session.code.run_code(code, "python").success
    result = session.file_system.read_file(f"{place}/b", format="bytes")
    assert result.success and result.content == bytes(range(256)) * 700
    assert "\ufffd" in session.file_system.read_file(f"{place}/b").content


def test_a_hundred_megabytes_in_and_out(make_session):
    session = make_session()
    content = "".join(f"{n % 10_000_000:07d}\n" for n in range(13_107_200))
    assert len(content) == 100 << 20
    # In steps, because the client's own cutting takes time with the square of the size.
    for at in range(0, len(content), 5 << 20):
        assert session.file_system.write_file("/workspace/big", content[at:at + (5 << 20)], mode="append").success
    assert session.command.execute_command("wc -c < big").stdout == f"{100 << 20}\n"
    result = session.file_system.read_file("/workspace/big")
    assert result.success and result.content == content


def test_directories(session, place):
    files = session.file_system
    assert files.create_directory(f"{place}/a/b/c").success
    assert files.create_directory(f"{place}/a/b/c").success
    files.write_file(f"{place}/a/.hidden", "")
    files.write_file(f"{place}/a/name with blanks", "")
    entries = {e.name: e.is_directory for e in files.list_directory(f"{place}/a").entries}
    assert entries == {"b": True, ".hidden": False, "name with blanks": False}
    empty = files.list_directory(f"{place}/a/b/c")
    assert empty.success and empty.entries == []
    for path in (f"{place}/missing", f"{place}/a/.hidden"):
        result = files.list_directory(path)
        assert not result.success and result.error_message


def test_info(session, place):
    files = session.file_system
    files.write_file(f"{place}/f", "12345")
    info = files.get_file_info(f"{place}/f").file_info
    assert (info["name"], info["path"], info["size"], info["isDirectory"], info["isFile"], info["permissions"], info["owner"]) == (
        "f", f"{place}/f", 5, False, True, 644, "sandbox")
    assert files.get_file_info(place).file_info["isDirectory"] is True
    result = files.get_file_info(f"{place}/missing")
    assert not result.success and "does not exist" in result.error_message


def test_edit(session, place):
    files = session.file_system
    files.write_file(f"{place}/f", "one two one three")
    assert files.edit_file(f"{place}/f", [{"oldText": "one", "newText": "1"}, {"oldText": "three", "newText": "3"}]).success
    assert files.read_file(f"{place}/f").content == "1 two one 3"
    assert files.edit_file(f"{place}/f", [{"oldText": "two", "newText": "2"}], dry_run=True).success
    result = files.edit_file(f"{place}/f", [{"oldText": "1", "newText": "x"}, {"oldText": "absent", "newText": "y"}])
    assert not result.success and "absent" in result.error_message
    assert files.read_file(f"{place}/f").content == "1 two one 3"


def test_move_and_delete(session, place):
    files = session.file_system
    files.write_file(f"{place}/f", "content")
    assert files.move_file(f"{place}/f", f"{place}/g").success
    assert not files.get_file_info(f"{place}/f").success and not files.read_file(f"{place}/f").success
    files.write_file(f"{place}/h", "other")
    assert not files.move_file(f"{place}/g", f"{place}/h").success
    assert files.read_file(f"{place}/h").content == "other"
    assert not files.move_file(f"{place}/missing", f"{place}/x").success
    assert files.delete_file(f"{place}/g").success
    assert not files.delete_file(f"{place}/g").success
    files.create_directory(f"{place}/d")
    result = files.delete_file(f"{place}/d")
    assert not result.success and "directory" in result.error_message


def test_search(session, place):
    files = session.file_system
    for name in ("a/SEARCHABLE_1.txt", "b/c/x_SEARCHABLE_2.log", "skip/SEARCHABLE_3.txt", "other.txt"):
        files.write_file(f"{place}/{name}", "")
    found = files.search_files(place, "*SEARCHABLE*", exclude_patterns=["skip"])
    assert found.success and found.matches == [f"{place}/a/SEARCHABLE_1.txt", f"{place}/b/c/x_SEARCHABLE_2.log"]
    assert files.search_files(place, "other.txt").matches == [f"{place}/other.txt"]
    assert files.search_files(place, "no-such-*").matches == []
    assert files.search_files(place, "").success
    assert not files.search_files(f"{place}/missing", "*").success
    session.command.execute_command(f"ln -s {place} {place}/loop")
    assert files.search_files(place, "other.txt").matches == [f"{place}/other.txt"]


def test_read_many(session, place):
    files = session.file_system
    files.write_file(f"{place}/a", "first")
    files.write_file(f"{place}/b", "second\nline")
    contents = files.read_multiple_files([f"{place}/a", f"{place}/b", f"{place}/missing"]).contents
    assert contents[f"{place}/a"] == "first" and contents[f"{place}/b"] == "second\nline" and "Error" in contents[f"{place}/missing"]
    assert not files.read_multiple_files([f"{place}/missing"]).success


@pytest.mark.parametrize("path", ["/etc/hosts", "/proc/self/status", "/dev/null", "/etc", "/tmp/pipe", "/root/x"])
def test_what_can_and_cannot_be_read(session, path):
    """Past the client, which asks for the size first and never reads what has none."""
    session.command.execute_command("test -p /tmp/pipe || mkfifo /tmp/pipe")
    began = time.monotonic()
    result = session.call_mcp_tool("read_file", {"path": path})
    assert time.monotonic() - began < 5
    assert result.success == (path == "/etc/hosts"), result.error_message
    assert "localhost" in result.data if result.success else result.error_message


@pytest.mark.parametrize("path", ["/etc/passwd", "/usr/bin/x", "/proc/x", "/workspace"])
def test_what_cannot_be_written(session, path):
    result = session.file_system.write_file(path, "x")
    assert not result.success and result.error_message


def test_no_way_out_by_links_or_dots(session, place):
    session.command.execute_command(f"ln -s /proc/1/root {place}/root; ln -s /proc/1/environ {place}/env")
    for path in (f"{place}/root/etc/shadow", f"{place}/env", f"{place}/../../etc/passwd"):
        assert not session.file_system.read_file(path).success


def test_changes_are_counted_exactly(session, place):
    files = session.file_system
    assert files._get_file_change(place).events == []
    files.write_file(f"{place}/one", "1")
    seen = [(e.event_type, e.path, e.path_type) for e in files._get_file_change(place).events]
    assert seen == [("create", f"{place}/one", "file"), ("modify", f"{place}/one", "file")]
    files.write_file(f"{place}/one", "2")
    files.create_directory(f"{place}/sub")
    files.write_file(f"{place}/sub/two", "2")
    seen = sorted((e.event_type, e.path) for e in files._get_file_change(place).events)
    assert seen == sorted([("modify", f"{place}/one"), ("create", f"{place}/sub"), ("create", f"{place}/sub/two"), ("modify", f"{place}/sub/two")])
    files.read_file(f"{place}/one")
    assert files._get_file_change(place).events == []
    files.delete_file(f"{place}/one")
    assert [(e.event_type, e.path) for e in files._get_file_change(place).events] == [("delete", f"{place}/one")]
    assert not files._get_file_change(f"{place}/missing").success


def test_watching_a_directory(session, place):
    events = []
    stop = threading.Event()
    thread = session.file_system.watch_directory(place, events.extend, interval=0.2, stop_event=stop)
    thread.start()
    time.sleep(1)
    for n in range(3):
        session.file_system.write_file(f"{place}/watched", str(n))
        time.sleep(0.6)
    stop.set()
    thread.join(10)
    assert [e.event_type for e in events] == ["create", "modify", "modify", "modify"]


def test_file_and_command_see_the_same(session, place):
    session.file_system.write_file(f"{place}/run.sh", "#!/bin/sh\necho ran $1\n")
    assert session.command.execute_command(f"chmod +x {place}/run.sh && {place}/run.sh it").stdout == "ran it\n"
    assert session.file_system.write_file("/home/wuying/f", "x").success
    assert session.command.execute_command("cat ~/f").stdout == "x"


def test_relative_paths_are_below_workspace(session):
    assert session.file_system.write_file("relative.txt", "here").success
    assert session.command.execute_command("cat /workspace/relative.txt").stdout == "here"
