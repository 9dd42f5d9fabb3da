// OpenAI's client for Node against our server: `node client.mjs SCENARIO` is silent when what the scenario promises is so.
// BASE_URL is the server, KEY its key, MEDIA the folder with pictures and sounds, GONE a server whose engine is not there.
import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { parse } from "@plussub/srt-vtt-parser";
import OpenAI, { toFile } from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { BASE_URL, KEY, MEDIA, GONE } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const model = "gemma-3n";
const base64 = (name) => readFileSync(`${MEDIA}/${name}`).toString("base64");
const user = (...content) => [{ role: "user", content }];
const text = (value) => ({ type: "text", text: value });
const picture = { type: "image_url", image_url: { url: `data:image/png;base64,${base64("red-circle.png")}`, detail: "low" } };
const sound = { type: "input_audio", input_audio: { data: base64("314.wav"), format: "wav" } };
const Weather = z.object({ city: z.string().max(20), days: z.number().int().min(1).max(7), unit: z.enum(["C", "F"]) });
const weather = zodFunction({ name: "get_weather", description: "The weather in a city.", parameters: Weather });

const scenarios = {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages: user(text("Hello")), temperature: 0 });
    assert.equal(answer.object, "chat.completion");
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    assert.match(answer._request_id, /^req_/);
  },

  async stream() {
    const asked = { model, messages: user(text("Hello")), temperature: 0 };
    const whole = await client.chat.completions.create(asked);
    const stream = client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
    let said = "";
    for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? "";
    assert.equal(said, whole.choices[0].message.content);
    assert.equal(await stream.finalContent(), said);
    assert.deepEqual((await stream.finalChatCompletion()).usage.completion_tokens, whole.usage.completion_tokens);
  },

  async models() {
    const names = [];
    for await (const entry of client.models.list()) names.push(entry.id);
    assert.ok(names.includes(model) && names.includes("gemma-3n:vision"));
    assert.equal((await client.models.retrieve("gemma-3n:vision")).id, "gemma-3n:vision");
  },

  async parse() {
    const answer = await client.chat.completions.parse({
      model,
      messages: user(text("What will the weather be in Paris?")),
      response_format: zodResponseFormat(Weather, "weather"),
      max_tokens: 200,
    });
    assert.deepEqual(Weather.parse(answer.choices[0].message.parsed), answer.choices[0].message.parsed);
  },

  async tools() {
    const asked = { model, messages: user(text("What is the weather in Paris?")), tools: [weather], tool_choice: "required", parallel_tool_calls: false };
    const answer = await client.chat.completions.parse(asked);
    const [call, ...more] = answer.choices[0].message.tool_calls;
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    assert.deepEqual(more, []);
    assert.deepEqual(Weather.parse(call.function.parsed_arguments), JSON.parse(call.function.arguments));
    const told = { role: "tool", tool_call_id: call.id, content: "Sunny, 21 C." };
    const last = await client.chat.completions.create({ ...asked, tool_choice: "none", messages: [...asked.messages, answer.choices[0].message, told] });
    assert.ok(last.choices[0].message.content);
  },

  async "tools in a stream"() {
    const stream = client.chat.completions.stream({
      model,
      messages: user(text("What is the weather in Paris?")),
      tools: [weather],
      tool_choice: { type: "function", function: { name: "get_weather" } },
    });
    const events = [];
    stream.on("tool_calls.function.arguments.delta", (event) => events.push(event.arguments_delta));
    const message = await stream.finalMessage();
    assert.equal(message.tool_calls[0].function.name, "get_weather");
    assert.equal(events.join(""), message.tool_calls[0].function.arguments);
    Weather.parse(JSON.parse(events.join("")));
  },

  async pictures() {
    const answer = await client.chat.completions.create({ model, messages: user(picture, text("What is in this image?")), temperature: 0 });
    assert.equal(answer.choices[0].message.content, "A red circle.");
  },

  async sounds() {
    const answer = await client.chat.completions.create({ model, messages: user(sound, text("Transcribe this audio.")), temperature: 0 });
    assert.equal(answer.choices[0].message.content, "3 1 4");
    assert.ok(answer.usage.prompt_tokens_details.audio_tokens > 0);
  },

  async speech() {
    const hear = (fields) => client.audio.transcriptions.create({ model: "whisper-1", file: createReadStream(`${MEDIA}/314.mp3`), ...fields });
    const heard = await hear({});
    assert.equal(heard.text, "3 1 4");
    assert.equal(heard.usage.total_tokens, heard.usage.input_tokens + heard.usage.output_tokens);
    assert.equal(await hear({ response_format: "text" }), "3 1 4\n");
    for (const form of ["srt", "vtt"]) {
      const [cue, ...more] = parse(await hear({ response_format: form })).entries;
      assert.deepEqual([cue.text, more], ["3 1 4", []]);
      assert.ok(0 <= cue.from && cue.from < cue.to && cue.to < 2000);
    }
    const long = await hear({ response_format: "verbose_json", file: createReadStream(`${MEDIA}/31s.mp3`), timestamp_granularities: ["segment"] });
    assert.ok(Math.abs(long.duration - 31) < 0.5 && long.segments.length > 1);
    long.segments.forEach(({ start, end }, i) => assert.ok(start < end && end <= long.duration && (!i || long.segments[i - 1].end <= start)));
    const translated = await client.audio.translations.create({ model: "whisper-1", file: await toFile(readFileSync(`${MEDIA}/314.wav`), "a.wav") });
    assert.ok(translated.text);
  },

  async "speech in a stream"() {
    const stream = await client.audio.transcriptions.create({ model: "gemma-3n", file: createReadStream(`${MEDIA}/314.webm`), stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    const last = events.pop();
    assert.deepEqual([last.type, last.text], ["transcript.text.done", "3 1 4"]);
    assert.ok(events.every(({ type }) => type === "transcript.text.delta"));
    assert.equal(events.map(({ delta }) => delta).join(""), last.text);
  },

  async errors() {
    const chat = (fields, from = client) => from.chat.completions.create({ model, messages: user(text("Hello")), ...fields });
    const gone = client.withOptions({ baseURL: GONE });
    for (const [asking, kind, status, code, param] of [
      [() => chat({ temperature: 3 }), OpenAI.BadRequestError, 400, "invalid_value", "temperature"],
      [() => chat({ messages: user({ type: "image_url", image_url: { url: "data:image/png;base64,aGk=" } }) }), OpenAI.BadRequestError, 400, "invalid_media"],
      [() => chat({}, client.withOptions({ apiKey: "wrong" })), OpenAI.AuthenticationError, 401, "invalid_api_key"],
      [() => chat({ model: "gpt-4o" }), OpenAI.NotFoundError, 404, "model_not_found", "model"],
      [() => client.audio.transcriptions.create({ model, file: createReadStream(`${MEDIA}/red-circle.png`) }), OpenAI.BadRequestError, 400, "invalid_media", "file"],
      [() => client.get("/nowhere"), OpenAI.NotFoundError, 404, "not_found"],
      [() => chat({}, gone), OpenAI.InternalServerError, 503, "engine_unavailable"],
    ]) {
      const error = await asking().then(() => assert.fail(`no error: ${code}`), (caught) => caught);
      assert.ok(error instanceof kind, `${error}`);
      assert.deepEqual([error.status, error.code], [status, code]);
      if (param) assert.equal(error.param, param);
      assert.ok(error.message.length > 20);
      assert.match(error.requestID, /^req_/);
    }
  },

  async abort() {
    const began = performance.now();
    const stream = await client.chat.completions.create({ model, messages: user(text("Hello")), ignore_eos: true, max_tokens: 2000, stream: true });
    let chunks = 0;
    for await (const _ of stream) if (++chunks === 3) stream.controller.abort();
    assert.equal(chunks, 3);
    assert.ok(performance.now() - began < 5000);
    await scenarios.chat();
  },
};

const scenario = scenarios[process.argv[2]];
assert.ok(scenario, `one of: ${Object.keys(scenarios).join(", ")}`);
await scenario();
