"""Drives a server with the official Python client of the Model Context Protocol.

    client.py MODE stdio PROGRAM ARGUMENT...
    client.py MODE http URL        (the bearer is in ADJUTANT_BEARER)

MODE is `auto`, which speaks the newest revision, or `legacy`, which opens a session. It ends with
exit code 0 after a line for each thing that was seen, or with the assertion that failed.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult

LONG = 30

TOOLS = {
    "answer_question", "archive_blueprint", "blueprint_schema", "check_blueprint", "doctor", "list_blueprints",
    "list_questions", "list_runs", "operator_ack", "operator_join", "operator_leave", "operator_wait",
    "put_blueprint", "read_output", "run_blueprint", "run_cancel", "run_status", "unarchive_blueprint",
}
READS = {
    "blueprint_schema", "check_blueprint", "doctor", "list_blueprints", "list_questions", "list_runs",
    "operator_wait", "read_output", "run_status",
}


def step(agent, at, out):
    return {"kind": "step", "ref": agent, "in": {"op": "path", "at": at}, "out": {"op": "path", "at": out}}


ECHO = {
    "id": "echo",
    "agents": [{"name": "echo", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
    "flow": step("echo", "$.word", "$.said"),
}
ASKS = {
    "id": "asks",
    "agents": [{"name": "boss", "kind": "ask", "spec": {"question_template": "Ship {{ what }}?"}}],
    "flow": step("boss", "$", "$.verdict"),
}
HANDS_OVER = {
    "id": "hands-over",
    "agents": [{
        "name": "scribe", "kind": "operator", "spec": {"operator_ref": "desk"},
        "profile": {"system_prompt": "You write {{ what }}."},
    }],
    "operators": [{"name": "desk"}],
    "flow": step("scribe", "$", "$.text"),
}


def seen(text):
    print(f"seen: {text}", flush=True)


def done(result):
    assert not result.is_error, result.content
    return result.structured_content


def refused(result, code):
    """The problem document of a refused call, whose first text names the next step."""
    assert result.is_error, result.structured_content
    assert result.structured_content is None, result.structured_content
    told, document = (block.text for block in result.content)
    problem = json.loads(document)
    assert problem["code"] == code, problem
    assert "\nNext: " in told, told
    return problem


class Case:
    def __init__(self, mode, transport, place, *args):
        self.mode, self.transport, self.place, self.args = mode, transport, place, list(args)

    def connect(self, **settings):
        if self.transport == "stdio":
            server = stdio_client(StdioServerParameters(command=self.place, args=self.args))
        else:
            headers = {"Authorization": f"Bearer {os.environ['ADJUTANT_BEARER']}"}
            http = httpx2.AsyncClient(headers=headers, timeout=LONG)
            server = streamable_http_client(self.place, http_client=http)
        return Client(server, mode=self.mode, read_timeout_seconds=LONG, **settings)

    async def greets(self, client):
        newest = client.protocol_version >= "2026-07-28"
        assert newest == (self.mode == "auto"), client.protocol_version
        assert client.server_info.name == "adjutant", client.server_info
        assert "run_blueprint" in client.instructions
        seen(f"a greeting in {client.protocol_version}")

    async def lists_tools(self, client):
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == TOOLS, sorted(tools)
        for name, tool in tools.items():
            assert tool.input_schema["type"] == "object" and tool.output_schema["type"] == "object", name
            assert tool.input_schema["additionalProperties"] is False, name
            assert tool.annotations.read_only_hint == (name in READS), name
            assert tool.description and tool.title, name
        for name in ("archive_blueprint", "run_cancel", "operator_leave"):
            assert tools[name].annotations.destructive_hint and tools[name].annotations.idempotent_hint
            assert "confirm" in tools[name].input_schema["properties"]
        seen("every tool with its schemas and hints")

    async def checks_documents(self, client):
        schema = done(await client.call_tool("blueprint_schema", {}))["schema"]
        assert schema["properties"]["flow"]
        good = done(await client.call_tool("check_blueprint", {"blueprint": ECHO}))
        assert (good["ok"], good["agents"], good["steps"]) == (True, 1, 1), good
        bad = done(await client.call_tool("check_blueprint", {"blueprint": {**ECHO, "agents": []}}))
        assert not bad["ok"] and "echo" in bad["errors"][0], bad
        doctor = done(await client.call_tool("doctor", {}))
        looked = {one["check"]: one["level"] for one in doctor["findings"]}
        assert doctor["ok"] and looked["journal"] == looked["clock"] == "ok", doctor
        seen("the schema, the check and the doctor")

    async def runs_to_the_end(self, client):
        run = done(await client.call_tool("run_blueprint", {"blueprint": ECHO, "input": {"word": "hello"}}))
        assert (run["status"], run["still_running"]) == ("pass", False), run
        assert run["report"]["context"]["said"]["echoed"] == "hello", run
        listed = done(await client.call_tool("list_runs", {"status": "pass"}))["runs"]
        assert run["run_id"] in [one["run_id"] for one in listed], listed
        output = done(await client.call_tool("read_output", {"task_id": run["tasks"][0]}))
        assert (output["task"]["status"], output["attempt"]) == ("pass", 1), output
        assert output["output"][-1]["type"] == "final", output
        seen("a run to its end, and its output")
        return run

    async def keeps_blueprints(self, client):
        kept = done(await client.call_tool("put_blueprint", {"blueprint": ECHO}))
        assert (kept["blueprint_id"], kept["changed"], kept["archived"]) == ("echo", True, False), kept
        assert not done(await client.call_tool("put_blueprint", {"blueprint": ECHO}))["changed"]
        which, run = {"blueprint_id": "echo"}, {"blueprint_id": "echo", "input": {"word": "kept"}}
        for _ in range(2):
            dry = done(await client.call_tool("archive_blueprint", which))
            assert not dry["archived"] and "confirm" in dry["next"], dry
        assert done(await client.call_tool("run_blueprint", run))["status"] == "pass"
        for _ in range(2):
            assert done(await client.call_tool("archive_blueprint", {**which, "confirm": True}))["archived"]
        assert "next" not in done(await client.call_tool("archive_blueprint", which))
        refused(await client.call_tool("run_blueprint", run), "blueprint_archived")
        refused(await client.call_tool("put_blueprint", {"blueprint": ECHO}), "blueprint_archived")
        (listed,) = done(await client.call_tool("list_blueprints", {}))["blueprints"]
        assert (listed["hash"], listed["archived"]) == (kept["hash"], True), listed
        assert not done(await client.call_tool("unarchive_blueprint", which))["archived"]
        assert done(await client.call_tool("run_blueprint", run))["status"] == "pass"
        for name in ("archive_blueprint", "unarchive_blueprint"):
            refused(await client.call_tool(name, {"blueprint_id": "nobody"}), "blueprint_not_found")
        seen("a blueprint kept, archived when that is confirmed, and taken back")

    async def answers_from_the_list(self, client):
        run = done(await client.call_tool("run_blueprint", {"blueprint": ASKS, "input": {"what": "it"}}))
        assert (run["status"], run["still_running"]) == ("waiting", True), run
        (question,) = run["questions"]
        assert question["question"] == "Ship it?", question
        listed = done(await client.call_tool("list_questions", {"run_id": run["run_id"]}))["questions"]
        assert listed == [question], listed
        answer = {"key": question["key"], "answer": {"ship": True}}
        assert done(await client.call_tool("answer_question", answer))["answered"]
        refused(await client.call_tool("answer_question", answer), "invalid_transition")
        ended = done(await client.call_tool("run_status", {"run_id": run["run_id"], "wait_secs": LONG}))
        assert ended["status"] == "pass" and ended["report"]["context"]["verdict"] == {"ship": True}, ended
        seen("a question in the list, answered once, and its run to the end")

    async def asks_the_user(self):
        asked = []

        async def accept(_, params):
            asked.append(params.message)
            assert list(params.requested_schema["properties"]) == ["answer"], params
            return ElicitResult(action="accept", content={"answer": "{\"ship\": 3}"})

        async with self.connect(elicitation_callback=accept) as client:
            run = done(await client.call_tool("run_blueprint", {"blueprint": ASKS, "input": {"what": "them"}}))
            assert run["status"] == "pass" and run["report"]["context"]["verdict"] == {"ship": 3}, run
            assert asked == ["Ship them?"], asked
        seen("a question put to the user in the middle of the call")

        async def decline(_, params):
            return ElicitResult(action="decline")

        async with self.connect(elicitation_callback=decline) as client:
            run = done(await client.call_tool("run_blueprint", {"blueprint": ASKS, "input": {"what": "us"}}))
            assert run["status"] == "waiting" and len(run["questions"]) == 1, run
            await self.cancels(client, run)
        seen("a question that the user declines, left in the list")

    async def cancels(self, client, run):
        which = {"run_id": run["run_id"]}
        dry = done(await client.call_tool("run_cancel", which))
        assert (dry["cancelled"], dry["would_cancel"]) == (False, run["tasks"]), dry
        assert done(await client.call_tool("run_status", which))["status"] == "waiting"
        for _ in range(2):
            assert done(await client.call_tool("run_cancel", {**which, "confirm": True}))["cancelled"]
        ended = done(await client.call_tool("run_status", {**which, "wait_secs": LONG}))
        assert ended["status"] == "cancelled", ended
        seen("a run that is cancelled only when that is confirmed")

    async def works_as_an_operator(self, client):
        login = done(await client.call_tool("operator_join", {"roles": ["desk"]}))
        sid = {"sid": login["sid"]}
        refused(await client.call_tool("operator_join", {"roles": ["desk"]}), "roles_held")
        nothing = done(await client.call_tool("operator_wait", {**sid, "timeout_ms": 50}))
        assert nothing["status"] == "waiting" and "request" not in nothing, nothing
        wait = asyncio.create_task(client.call_tool("operator_wait", {**sid, "timeout_ms": LONG * 1000}))
        start = {"blueprint": HANDS_OVER, "input": {"what": "odes"}, "wait_secs": 0}
        run = done(await client.call_tool("run_blueprint", start))
        spawn = done(await wait)["request"]
        assert (spawn["type"], spawn["agent"], spawn["attempt"]) == ("spawn", "scribe", 1), spawn
        assert spawn["system"] == "You write odes." and json.loads(spawn["prompt"]) == {"what": "odes"}, spawn
        # What was not replied to is given again, and nothing comes after it.
        again = done(await client.call_tool("operator_wait", {**sid, "timeout_ms": 50}))
        assert again["request"] == spawn, again
        after = {**sid, "timeout_ms": 50, "after": spawn["seq"]}
        assert done(await client.call_tool("operator_wait", after))["status"] == "waiting"
        refused(await client.call_tool("operator_ack", {**sid, "req_id": "none", "value": 1}), "request_not_found")
        assert done(await client.call_tool("operator_leave", sid))["unanswered"] == 1
        ack = {**sid, "req_id": spawn["req_id"], "value": "O bees"}
        assert done(await client.call_tool("operator_ack", ack))["taken"]
        ended = done(await client.call_tool("run_status", {"run_id": run["run_id"], "wait_secs": LONG}))
        assert ended["status"] == "pass" and ended["report"]["context"]["text"] == "O bees", ended
        assert done(await client.call_tool("operator_leave", sid)) == {**sid, "left": False, "unanswered": 0}
        assert done(await client.call_tool("operator_leave", {**sid, "confirm": True}))["left"]
        refused(await client.call_tool("operator_wait", {**sid, "timeout_ms": 50}), "operator_gone")
        seen("the work of an operator from joining to leaving")

    async def reads_resources(self, client, run):
        listed = {resource.uri: resource for resource in (await client.list_resources()).resources}
        guides = [f"adjutant://guides/{name}" for name in ("answer", "blueprint", "worker")]
        assert sorted(map(str, listed)) == [*guides, "adjutant://schema/blueprint"], listed
        for uri in listed:
            assert (await client.read_resource(uri)).contents[0].text, uri
        templates = (await client.list_resource_templates()).resource_templates
        assert [one.uri_template for one in templates] == ["adjutant://runs/{id}", "adjutant://tasks/{id}"]
        read = await client.read_resource(f"adjutant://runs/{run['run_id']}")
        assert json.loads(read.contents[0].text)["status"] == "pass"
        read = await client.read_resource(f"adjutant://tasks/{run['tasks'][0]}")
        assert json.loads(read.contents[0].text)["agent"] == "echo"
        for uri in ("adjutant://nothing", f"adjutant://runs/run-{'0' * 32}"):
            try:
                await client.read_resource(uri)
            except MCPError:
                continue
            raise AssertionError(f"{uri} was read")
        seen("the schema, the guides, a run and a task as resources")

    async def refuses(self, client):
        refused(await client.call_tool("run_status", {"run_id": f"run-{'0' * 32}"}), "run_not_found")
        refused(await client.call_tool("run_status", {"run": "x"}), "invalid_argument")
        refused(await client.call_tool("run_blueprint", {"blueprint": {"id": "x"}}), "invalid_blueprint")
        refused(await client.call_tool("run_blueprint", {"blueprint_id": "nobody"}), "blueprint_not_found")
        try:
            await client.call_tool("no_such_tool", {})
        except MCPError:
            seen("refusals with a code and the next step")
            return
        raise AssertionError("a tool that is not there was called")

    async def drive(self):
        async with self.connect() as client:
            await self.greets(client)
            await self.lists_tools(client)
            await self.checks_documents(client)
            run = await self.runs_to_the_end(client)
            await self.keeps_blueprints(client)
            await self.answers_from_the_list(client)
            await self.works_as_an_operator(client)
            await self.reads_resources(client, run)
            await self.refuses(client)
        await self.asks_the_user()


asyncio.run(asyncio.wait_for(Case(*sys.argv[1:]).drive(), 4 * LONG))
