// A session of the OpenAI client for Node: `node session.mjs URL`, with the package in NODE_PATH's folder.
import { createRequire } from "node:module";
const require = createRequire(process.argv[3] + "/");
const OpenAI = require("openai").default ?? require("openai");
const { toFile } = require("openai");

const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "anything" });
const lines = [0, 1, 2, 3].map((n) => JSON.stringify({
  custom_id: `q-${n}`, method: "POST", url: "/v1/chat/completions",
  body: { model: "scripted", messages: [{ role: "user", content: `What is ${n}?` }] },
}));
const file = await client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "input.jsonl"), purpose: "batch" });
const made = [];
for (const n of [0, 1, 2]) {
  made.push(await client.batches.create({
    input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h", metadata: { n: String(n) },
  }));
}
let batch = made[0];
for (let tries = 0; batch.status !== "completed" && tries < 300; tries++) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  batch = await client.batches.retrieve(batch.id);
}
const ids = made.map((item) => item.id);
const listed = [];
for await (const item of client.batches.list({ limit: 1 })) {
  if (ids.includes(item.id)) listed.push(item.id);
}
const output = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n").map((l) => JSON.parse(l));
const question = { model: "scripted", messages: [{ role: "user", content: "What?" }] };
const answer = await client.chat.completions.create(question);
let text = "";
for await (const chunk of await client.chat.completions.create({ ...question, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
const code = async (call) => { try { await call(); return null; } catch (error) { return error.code; } };
console.log(JSON.stringify({
  filename: file.filename, status: batch.status,
  counts: [batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed],
  listed: JSON.stringify(listed) === JSON.stringify([...ids].reverse()),
  names: output.map((item) => item.custom_id).sort(),
  answer: Boolean(answer.choices[0].message.content), stream: Boolean(text),
  refused: await code(() => client.batches.cancel(batch.id)),
  missing: await code(() => client.files.retrieve("file-none")),
  deleted: (await client.files.delete(file.id)).deleted,
}));
