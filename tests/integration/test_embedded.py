from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis


async def test_the_broker_keeps_a_message(kafka):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic("embedded", num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait("embedded", b"kept")
    async with AIOKafkaConsumer("embedded", bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        assert (await consumer.getone()).value == b"kept"


async def test_valkey_acknowledges_what_is_on_disk(valkey):
    async with Redis.from_url(valkey) as client:
        await client.set("key", "value")
        assert (await client.execute_command("WAITAOF", 1, 0, 5000))[0] == 1
