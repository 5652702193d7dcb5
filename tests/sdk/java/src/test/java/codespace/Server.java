package codespace;

import static org.junit.Assert.assertTrue;

import com.aliyun.agentbay.AgentBay;
import com.aliyun.agentbay.Config;
import com.aliyun.agentbay.model.SessionResult;
import com.aliyun.agentbay.session.CreateSessionParams;
import com.aliyun.agentbay.session.Session;
import java.util.Map;

/** The server under test, as the environment names it. */
final class Server {
  static final int TIMEOUT_MS = 60_000;

  private Server() {}

  static AgentBay client() throws Exception {
    return client(System.getenv("AGENTBAY_API_KEY"));
  }

  static AgentBay client(String key) throws Exception {
    return new AgentBay(key, new Config("cn-shanghai", System.getenv("AGENTBAY_ENDPOINT"), TIMEOUT_MS));
  }

  static CreateSessionParams params() {
    CreateSessionParams params = new CreateSessionParams();
    params.setImageId("code_latest");
    params.setLabels(Map.of("suite", "java"));
    return params;
  }

  static Session session() throws Exception {
    SessionResult made = client().create(params());
    assertTrue(made.getErrorMessage(), made.isSuccess());
    return made.getSession();
  }
}
