package codespace;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import com.aliyun.agentbay.AgentBay;
import com.aliyun.agentbay.exception.AgentBayException;
import com.aliyun.agentbay.filesystem.FileSystem;
import com.aliyun.agentbay.model.CodeExecutionResult;
import com.aliyun.agentbay.model.CommandResult;
import com.aliyun.agentbay.model.SessionResult;
import com.aliyun.agentbay.session.CreateSessionParams;
import com.aliyun.agentbay.session.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.AfterClass;
import org.junit.BeforeClass;
import org.junit.Test;

/** Every call of the Java SDK that a code sandbox has, and its failures, in one session. */
public class CallsTest {
  private static Session session;

  @BeforeClass
  public static void open() throws Exception {
    session = Server.session();
  }

  @AfterClass
  public static void close() {
    assertTrue(session.delete().isSuccess());
  }

  private static CodeExecutionResult run(String code, String language) {
    return session.getCode().runCode(code, language);
  }

  private static void assertMessage(String got, String... parts) {
    assertNotNull(got);
    for (String part : parts) {
      assertTrue("'" + part + "' is not in: " + got, got.contains(part));
    }
  }

  // --- code ---------------------------------------------------------------------------------------

  @Test
  public void theLastExpressionIsTheResult() {
    CodeExecutionResult result = run("print(1)\n6 * 7", "python");
    assertTrue(result.isSuccess());
    assertEquals("42", result.getResult());
    assertEquals("[ 1, 'a' ]", run("[1, 'a']", "javascript").getResult());
    assertEquals("42", session.getCode().execute("6 * 7").getResult());
  }

  @Test
  public void variablesStay() {
    assertTrue(run("kept = 'across runs'", "python").isSuccess());
    assertEquals("across runs\n", run("print(kept)", "python").getResult());
    assertTrue(run("const keptToo = 5", "javascript").isSuccess());
    assertEquals("5\n", run("console.log(keptToo)", "javascript").getResult());
  }

  @Test
  public void codeThatPrintsNothingSucceeds() {
    CodeExecutionResult result = run("x = 1", "python");
    assertTrue(result.getErrorMessage(), result.isSuccess());
    assertEquals("", result.getResult());
  }

  @Test
  public void textOfAllAlphabets() {
    assertEquals("ä 中文 😀\n", run("print('ä 中文 😀')", "python").getResult());
    assertEquals("{\"a\": 1}\n", run("print('{\"a\": 1}')", "python").getResult());
    assertEquals("[1, 2]\n", run("print([1, 2])", "python").getResult());
  }

  @Test
  public void anErrorIsAFailureWithItsMessage() {
    CodeExecutionResult result = run("print('before')\n1/0", "python");
    assertFalse(result.isSuccess());
    assertMessage(result.getErrorMessage(), "before", "ZeroDivisionError: division by zero");
    assertMessage(run("throw new TypeError('no')", "javascript").getErrorMessage(), "TypeError: no");
    assertEquals("alive\n", run("print('alive')", "python").getResult());
  }

  @Test
  public void anotherLanguageIsRefused() {
    CodeExecutionResult result = run("1", "cobol");
    assertFalse(result.isSuccess());
    assertMessage(result.getErrorMessage(), "cobol");
  }

  @Test
  public void aRunEndsAtItsTimeout() {
    CodeExecutionResult result = session.getCode().runCode("import time\nprint('begun', flush=True)\ntime.sleep(30)", "python", 1);
    assertFalse(result.isSuccess());
    assertMessage(result.getErrorMessage(), "begun", "1 s");
    assertEquals("again\n", run("print('again')", "python").getResult());
  }

  // --- commands -----------------------------------------------------------------------------------

  @Test
  public void commands() {
    CommandResult result = session.getCommand().executeCommand("echo out; echo err >&2", 5_000);
    assertTrue(result.isSuccess());
    assertEquals("out\nerr\n", result.getOutput());
    assertEquals("/workspace\n", session.getCommand().execute("pwd").getOutput());
  }

  @Test
  public void aFailingCommandTellsItsExitCode() {
    CommandResult result = session.getCommand().executeCommand("echo partial; exit 3", 5_000);
    assertFalse(result.isSuccess());
    assertMessage(result.getErrorMessage(), "3", "partial");
    assertMessage(session.getCommand().executeCommand("ls /nope", 5_000).getErrorMessage(), "No such file or directory");
  }

  @Test
  public void aCommandEndsAtItsTimeout() {
    CommandResult result = session.getCommand().executeCommand("echo begun; sleep 30", 1_000);
    assertFalse(result.isSuccess());
    assertMessage(result.getErrorMessage(), "begun", "1000 ms");
  }

  // --- files --------------------------------------------------------------------------------------

  @Test
  public void filesAreWrittenAndRead() {
    FileSystem files = session.getFileSystem();
    assertTrue(files.writeFile("/workspace/a.txt", "one\n").isSuccess());
    assertTrue(files.writeFile("/workspace/a.txt", "two\n", "append").isSuccess());
    assertEquals("one\ntwo\n", files.readFile("/workspace/a.txt").getContent());
    assertTrue(files.writeFile("/workspace/ä 中.txt", "ü").isSuccess());
    assertEquals("ü", files.readFile("/workspace/ä 中.txt").getContent());
    assertFalse(files.readFile("/workspace/none").isSuccess());
    assertMessage(files.readFile("/workspace/none").getErrorMessage(), "/workspace/none");
    assertFalse(files.writeFile("/proc/version", "x").isSuccess());
  }

  @Test
  public void largeFilesGoAndComeInChunks() {
    String large = "0123456789abcde\n".repeat(64 * 1024);
    assertTrue(session.getFileSystem().writeFile("/workspace/large", large, "overwrite", false).isSuccess());
    assertEquals("1048576\n", session.getCommand().executeCommand("stat -c %s large", 5_000).getOutput());
    assertEquals(large, session.getFileSystem().readFile("/workspace/large").getContent());
  }

  @Test
  public void directoriesAndInformation() {
    FileSystem files = session.getFileSystem();
    assertTrue(files.createDirectory("/workspace/d/e").isSuccess());
    assertTrue(files.writeFile("/workspace/d/f.txt", "12345").isSuccess());
    List<String> names = new ArrayList<>();
    for (Map<String, Object> entry : files.listDirectory("/workspace/d").getEntries()) {
      names.add(entry.get("name") + (Boolean.TRUE.equals(entry.get("isDirectory")) ? "/" : ""));
    }
    assertTrue(names.toString(), names.containsAll(List.of("e/", "f.txt")) && names.size() == 2);
    Map<String, Object> info = files.getFileInfo("/workspace/d/f.txt").getFileInfo();
    assertEquals("5", String.valueOf(info.get("size")));
    assertEquals("true", String.valueOf(info.get("isFile")));
    assertFalse(files.getFileInfo("/workspace/d/none").isSuccess());
    assertFalse(files.listDirectory("/workspace/none").isSuccess());
  }

  @Test
  public void editMoveDelete() {
    FileSystem files = session.getFileSystem();
    assertTrue(files.writeFile("/workspace/m.txt", "hello world").isSuccess());
    List<Map<String, String>> edits = List.of(Map.of("oldText", "hello", "newText", "bye"));
    assertTrue(files.editFile("/workspace/m.txt", edits, true).isSuccess());
    assertEquals("hello world", files.readFile("/workspace/m.txt").getContent());
    assertTrue(files.editFile("/workspace/m.txt", edits).isSuccess());
    assertEquals("bye world", files.readFile("/workspace/m.txt").getContent());
    assertFalse(files.editFile("/workspace/m.txt", edits).isSuccess());
    assertTrue(files.moveFile("/workspace/m.txt", "/workspace/n.txt").isSuccess());
    assertFalse(files.moveFile("/workspace/m.txt", "/workspace/o.txt").isSuccess());
    assertTrue(files.deleteFile("/workspace/n.txt").isSuccess());
    assertFalse(files.readFile("/workspace/n.txt").isSuccess());
    assertTrue(files.deleteFile("/workspace/n.txt").isSuccess());  // the SDK runs `rm -rf`
  }

  @Test
  public void searchesAndSeveralFiles() {
    FileSystem files = session.getFileSystem();
    assertTrue(files.createDirectory("/workspace/s").isSuccess());
    assertTrue(files.writeFile("/workspace/s/one.py", "1").isSuccess());
    assertTrue(files.writeFile("/workspace/s/two.txt", "2").isSuccess());
    assertEquals(List.of("/workspace/s/one.py"), files.searchFiles("/workspace/s", "*.py").getMatches());
    assertTrue(files.searchFiles("/workspace/s", "*.none").getMatches().isEmpty());
    assertFalse(files.searchFiles("/workspace/s", "*", List.of("*.txt")).getMatches().contains("/workspace/s/two.txt"));
    Map<String, String> contents = files.readMultipleFiles(List.of("/workspace/s/one.py", "/workspace/s/two.txt")).getContent();
    // The SDK writes a backslash and an n behind every line but the very last.
    assertEquals("1", contents.get("/workspace/s/one.py").replace("\\n", ""));
    assertEquals("2", contents.get("/workspace/s/two.txt").replace("\\n", ""));
  }

  @Test
  public void theShortCalls() throws Exception {
    FileSystem files = session.getFileSystem();
    files.write("/workspace/short", "x");
    assertEquals("x", files.read("/workspace/short"));
    assertTrue(files.exists("/workspace/short"));
    assertFalse(files.exists("/workspace/long"));
    files.mkdir("/workspace/short.d");
    files.copy("/workspace/short", "/workspace/short.d/copy");
    files.move("/workspace/short.d/copy", "/workspace/moved");
    assertEquals("x", files.read("/workspace/moved"));
    files.remove("/workspace/moved");
    assertFalse(files.exists("/workspace/moved"));
  }

  // --- sessions -----------------------------------------------------------------------------------

  @Test
  public void aSessionIsFoundAgain() throws Exception {
    assertTrue(run("here = 'same session'", "python").isSuccess());
    SessionResult found = Server.client().get(session.getSessionId());
    assertTrue(found.getErrorMessage(), found.isSuccess());
    assertEquals("same session\n", found.getSession().getCode().runCode("print(here)", "python").getResult());
    Session restored = Session.restoreState(Server.client(), session.dumpState());
    assertEquals("same session\n", restored.getCode().runCode("print(here)", "python").getResult());
  }

  @Test
  public void information() throws Exception {
    assertEquals(session.getSessionId(), session.info().getSessionInfo().getSessionId());
    assertTrue(session.info().getSessionInfo().getResourceUrl().startsWith("https://"));
    List<String> names = new ArrayList<>();
    session.listMcpTools().getTools().forEach(tool -> names.add(tool.getName()));
    assertTrue(names.toString(), names.containsAll(List.of("run_code", "shell", "read_file", "write_file", "get_metrics")));
  }

  @Test
  public void failuresAreOrdinary() throws Exception {
    AgentBay wrong = Server.client("akm-wrong");
    SessionResult refused = wrong.create(Server.params());
    assertFalse(refused.isSuccess());
    assertMessage(refused.getErrorMessage(), "API key");
    assertMessage(Server.client().get("session-none").getErrorMessage(), "session-none", "not found");
    CreateSessionParams browser = Server.params();
    browser.setImageId("browser_latest");
    SessionResult noImage = Server.client().create(browser);
    assertFalse(noImage.isSuccess());
    assertMessage(noImage.getErrorMessage(), "browser_latest");
    assertMessage(assertThrows(AgentBayException.class, () -> session.getLink()).getMessage(), "not available");
  }

  @Test
  public void aDeletedSessionSaysSo() throws Exception {
    Session own = Server.session();
    assertTrue(own.delete().isSuccess());
    CodeExecutionResult late = own.getCode().runCode("1", "python");
    assertFalse(late.isSuccess());
    assertMessage(late.getErrorMessage(), "deleted");
    assertFalse(own.getCommand().executeCommand("true", 1_000).isSuccess());
    assertFalse(own.getFileSystem().readFile("/etc/passwd").isSuccess());
  }

  @Test
  public void manyAtOnce() throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(4);
    List<Future<String>> results = new ArrayList<>();
    for (int i = 0; i < 16; i++) {
      String code = "print(" + i + " * 3)";
      results.add(pool.submit(() -> {
        Session own = Server.session();
        try {
          return own.getCode().runCode(code, "python").getResult();
        } finally {
          own.delete();
        }
      }));
    }
    for (int i = 0; i < 16; i++) {
      assertEquals(i * 3 + "\n", results.get(i).get());
    }
    pool.shutdown();
  }
}
