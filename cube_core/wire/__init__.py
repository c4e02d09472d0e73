"""The wire: baidu_std, HTTP and gRPC, server and client side."""
