const http = require("http");
const ms = require("ms");

const port = Number(process.env.PORT || 8000);
const version = process.env.OMNI_RELEASE || "dev";

const server = http.createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  if (request.url === "/healthz") return response.end('{"status": "ok"}');
  console.log(`${request.method} ${request.url} release=${version}`);
  const uptime = ms(Math.round(process.uptime() * 1000), { long: true });
  response.end(JSON.stringify({ app: "node-web", version, pid: process.pid, uptime }));
});

server.listen(port, process.env.HOST || "0.0.0.0", () => console.log(`listening on port ${port}`));
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
