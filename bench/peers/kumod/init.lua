-- Relays all of the loopback's mail to one host; @SPOOL@ is `synced` or `deferred`.
local kumo = require 'kumo'
local SYNCED = '@SPOOL@' == 'synced'

kumo.on('init', function()
  kumo.configure_accounting_db_path ':memory:'
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:@PORT@',
    hostname = 'mta.bench.test',
    relay_hosts = { '127.0.0.0/8' },
    deferred_spool = not SYNCED,
    max_messages_per_connection = 1000000,
  }
  for _, name in ipairs { 'data', 'meta' } do
    kumo.define_spool {
      name = name,
      path = '@FOLDER@/' .. name,
      kind = 'RocksDB',
      flush = SYNCED,
    }
  end
end)

-- `flush` syncs no message of RocksDB: only this does.
kumo.on('smtp_server_message_received', function(msg)
  if SYNCED then
    msg:set_force_sync(true)
  end
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {
    protocol = { smtp = { mx_list = { { name = 'next.bench.test', addr = '@ADDRESS@' } } } },
    strategy = 'SingletonTimerWheelV2',
  }
end)

kumo.on('get_egress_path_config', function(domain, source_name, site_name)
  return kumo.make_egress_path {
    smtp_port = @NEXT_PORT@,
    connection_limit = 50,
    max_ready = 80000,
    max_deliveries_per_connection = 100000,
    enable_tls = 'Disabled',
    refresh_strategy = 'Epoch',
    prohibited_hosts = {},
  }
end)
