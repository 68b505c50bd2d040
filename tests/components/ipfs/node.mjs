// An IPFS node with Kubo's RPC API and a gateway, both on the loopback interface, without connections to other nodes.
// node node.mjs REPOSITORY RPC_PORT GATEWAY_PORT; port 0 chooses a free port. Prints one line of JSON when it is ready.
import { create } from 'ipfs-core'
import { HttpGateway } from 'ipfs-http-gateway'
import { HttpApi } from 'ipfs-http-server'

const [repo, rpcPort, gatewayPort] = process.argv.slice(2)
const ipfs = await create({
  repo,
  offline: true,
  silent: true,
  preload: { enabled: false },
  init: { algorithm: 'Ed25519', emptyRepo: true },
  config: {
    Addresses: {
      Swarm: [],
      API: `/ip4/127.0.0.1/tcp/${rpcPort}`,
      Gateway: `/ip4/127.0.0.1/tcp/${gatewayPort}`,
      Delegates: []
    },
    Bootstrap: [],
    Discovery: { MDNS: { Enabled: false }, webRTCStar: { Enabled: false } }
  }
})
const rpc = new HttpApi(ipfs)
await rpc.start()
const gateway = new HttpGateway(ipfs)
await gateway.start()
console.log(JSON.stringify({ rpc: rpc._apiServers[0].info.uri, gateway: gateway._gatewayServers[0].info.uri }))

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    await gateway.stop()
    await rpc.stop()
    await ipfs.stop()
    process.exit(0)
  })
}
